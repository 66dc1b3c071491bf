"""What a head of a segmentation network is, and the layer that most are made of."""

import abc
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import BatchNorm, Conv, Dtype, mask_features
from wsss_jax.settings import supplied


class Head(nn.Module, abc.ABC):
    """From a backbone's feature maps to the logits of the pixels.

    A head is one module of this package, or any module, with one subclass; its fields are its
    settings. Its batch norm is trained.

    Attributes:
      outputs: channels of the logits. The method supplies it.
      dtype: of the convolutions. The method supplies it.
    """

    room: ClassVar[str] = "wsss_jax.models.heads"

    outputs: int = supplied(default=0, kw_only=True)
    dtype: Dtype = supplied(default=jnp.float32, kw_only=True)

    @nn.nowrap
    def stride(self, strides: Mapping[str, int]) -> int:
        """Image pixels per pixel of the logits, given those of the feature maps."""
        return strides["conv6"]

    @abc.abstractmethod
    def __call__(
        self,
        taps: dict[str, Array],
        strides: Mapping[str, int],
        valid: Bool[Array, "b h w"] | None,
        *,
        train: bool = False,
    ) -> Float[Array, "b p q c1"]:
        """The logits.

        Args:
          taps: the backbone's feature maps, see `wsss_jax.models.base.Backbone`.
          strides: of the feature maps, see its `tap_strides`.
          valid: the pixels of the network's input that belong to the image.
          train: turns dropout on, and the batch's statistics in batch norm.

        Returns:
          float32 logits of `outputs` classes, of the stride that `stride` names.
        """


class ConvNormRelu(nn.Module):
    """Convolution, batch norm and ReLU.

    Attributes:
      features: channels of the result.
      kernel_size: side of the kernel.
      dilation: distance between its taps.
      momentum: of batch norm, see `BatchNorm`.
      dtype: of the convolution.
    """

    features: int
    kernel_size: int = 1
    dilation: int = 1
    momentum: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], valid: Bool[Array, "b h w"] | None
    ) -> Float[Array, "b h w d"]:
        """`valid` are the pixels of `x` that belong to the image."""
        size, rate = self.kernel_size, self.dilation
        x = mask_features(x, valid) if size > 1 else x
        x = Conv(self.features, size, dilation=rate, dtype=self.dtype, name="conv")(x)
        return nn.relu(BatchNorm(self.momentum, name="norm")(x))
