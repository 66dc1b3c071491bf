"""The contract of the heads of segmentation networks, and the layer that most of them use."""

import abc
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import BatchNorm, Conv, Dtype, mask_features
from wsss_jax.settings import supplied


class Head(nn.Module, abc.ABC):
    """A network from a backbone's feature maps to the logits of the pixels.

    A head is one module of this package, or any module, with one subclass, whose fields are its
    settings. Its batch norm is trained.

    Attributes:
      outputs: the channels of the logits, which the method supplies.
      dtype: the type of the convolutions, which the method supplies.
    """

    room: ClassVar[str] = "wsss_jax.models.heads"

    outputs: int = supplied(default=0, kw_only=True)
    dtype: Dtype = supplied(default=jnp.float32, kw_only=True)

    @nn.nowrap
    def stride(self, strides: Mapping[str, int]) -> int:
        """Returns the image pixels per pixel of the logits, given those of the feature maps."""
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
        """Computes the logits.

        Args:
          taps: the feature maps of the backbone; see `wsss_jax.models.base.Backbone`.
          strides: their strides; see `Backbone.tap_strides`.
          valid: the pixels of the network's input that belong to the image.
          train: turns on dropout, and the statistics of the batch in batch norm.

        Returns:
          The float32 logits of `outputs` classes, at the stride that `stride` returns.
        """


class ConvNormRelu(nn.Module):
    """A convolution, batch norm and ReLU.

    Attributes:
      features: the channels of the result.
      kernel_size: the side of the kernel.
      dilation: the distance between its taps.
      momentum: the momentum of batch norm; see `BatchNorm`.
      dtype: the type of the convolution.
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
        """Applies the layer; `valid` marks the pixels of `x` that belong to the image."""
        size, rate = self.kernel_size, self.dilation
        x = mask_features(x, valid) if size > 1 else x
        x = Conv(self.features, size, dilation=rate, dtype=self.dtype, name="conv")(x)
        return nn.relu(BatchNorm(self.momentum, name="norm")(x))
