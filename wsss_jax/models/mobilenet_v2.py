"""A dilated MobileNetV2 (Sandler et al., CVPR 2018), the light backbone.

Parameters have torchvision's names (``features.4.conv.1.0.weight`` is
``features_4/conv_1_0/kernel`` here). Padding follows TensorFlow's SAME rule for even sizes: a
layer of stride 2 adds no row before and one row after (odd sizes get one more row after). So an
image has the same sampling grid alone and inside a larger canvas.
"""

import re
from collections.abc import Mapping
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import (
    BatchNorm,
    Conv,
    DepthwiseConv,
    Dtype,
    downsample_valid,
    mask_features,
)
from wsss_jax.models.torch_names import torch_name
from wsss_jax.ops.depthwise import Padding

# (expansion, channels, blocks, stride) of the seven groups, from table 2 of the paper.
_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STRIDE_4 = 3
_LAST = 1280


def _same_padding(x: Array, stride: int, dilation: int) -> Padding:
    if stride == 1:
        return ((dilation, dilation), (dilation, dilation))
    return ((0, 1 + x.shape[1] % 2), (0, 1 + x.shape[2] % 2))


class _Block(nn.Module):
    """An inverted residual block: 1×1 expansion, 3×3 depthwise layer, 1×1 projection."""

    expansion: int
    features: int
    stride: int
    dilation: int
    dtype: Dtype
    momentum: float = 0.0

    @nn.compact
    def __call__(self, x: Array, valid: Array | None) -> Array:
        y, layer = x, 0
        if self.expansion > 1:
            y = Conv(x.shape[-1] * self.expansion, 1, name="conv_0_0", dtype=self.dtype)(y)
            y = nn.relu6(BatchNorm(self.momentum, name="conv_0_1")(y))
            layer = 1
        padding = _same_padding(y, self.stride, self.dilation)
        y = DepthwiseConv(
            self.stride, self.dilation, padding, name=f"conv_{layer}_0", dtype=self.dtype
        )(mask_features(y, valid))
        y = nn.relu6(BatchNorm(self.momentum, name=f"conv_{layer}_1")(y))
        y = Conv(self.features, 1, name=f"conv_{layer + 1}", dtype=self.dtype)(y)
        y = BatchNorm(self.momentum, name=f"conv_{layer + 2}")(y)
        return x + y if self.stride == 1 and x.shape[-1] == self.features else y


class MobileNetV2(Backbone):
    """MobileNetV2 of width 1.0; stem, blocks of stride 4 and, by default, batch norm are frozen.

    Attributes:
      output_stride: the output stride; strides beyond it become dilations.
      taps: the numbers of the blocks whose results are ``conv4`` and ``conv5``.
      remat: whether the backward pass recomputes the activations inside the blocks.
      bn_momentum: the momentum of trained batch norm (see `BatchNorm`); 0 freezes batch norm.
    """

    output_stride: Literal[8, 16, 32] = 16
    taps: tuple[int, int] = (5, 12)
    remat: bool = False
    bn_momentum: float = 0.0

    pixel_mean: ClassVar[tuple[float, float, float]] = (127.5, 127.5, 127.5)
    pixel_std: ClassVar[tuple[float, float, float]] = (127.5, 127.5, 127.5)

    @property
    def tap_strides(self) -> Mapping[str, int]:
        """See `Backbone`."""
        strides, stride = [], 2  # the strides of the blocks after a stem of stride 2
        for _, _, blocks, step in _GROUPS:
            stride = min(stride * step, self.output_stride)
            strides += blocks * [stride]
        first, second = (strides[block - 1] for block in self.taps)
        return {"conv3": 4, "conv4": first, "conv5": second, "conv6": stride}

    @nn.nowrap
    def frozen(self) -> tuple[str, ...]:
        """Freezes the stem, the blocks of stride 4 and, unless it is trained, batch norm."""
        first = (r"backbone/features_0_[01]/", r"backbone/features_[1-3]/")
        return first if self.bn_momentum else (*first, r"backbone/.*/(scale|bias)$")

    @nn.nowrap
    def import_name(self, path: tuple[str, ...]) -> str:
        """Returns torchvision's name: ``features_4/conv_1_0`` is ``features.4.conv.1.0``."""
        return re.sub(r"_(?=\d)", ".", torch_name(path))

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """See `Backbone`; all maps are float32, and there is no dropout."""
        momentum = self.bn_momentum if train else 0.0
        x = mask_features(x.astype(self.dtype), valid)
        padding = _same_padding(x, 2, 1)
        x = Conv(32, 3, 2, padding=padding, name="features_0_0", dtype=self.dtype)(x)
        x = nn.relu6(BatchNorm(momentum, name="features_0_1")(x))
        valid = downsample_valid(valid, 2)
        block = nn.remat(_Block) if self.remat else _Block
        taps: dict[str, Array] = {}
        stride, dilation, index = 2, 1, 0
        for expansion, features, blocks, group_stride in _GROUPS:
            for position in range(blocks):
                index += 1
                step, rate = group_stride if position == 0 else 1, dilation
                if stride * step > self.output_stride:
                    # The first block of a dilated group keeps the previous rate, as in DeepLab.
                    step, dilation = 1, dilation * group_stride
                stride *= step
                fields = (expansion, features, step, rate, self.dtype, momentum)
                x = block(*fields, name=f"features_{index}")(x, valid)
                valid = downsample_valid(valid, step)
                if index == _STRIDE_4:
                    taps["conv3"] = x
                if index in self.taps:
                    taps["conv4" if index == self.taps[0] else "conv5"] = x
        x = Conv(_LAST, 1, name="features_18_0", dtype=self.dtype)(x)
        taps["conv6"] = nn.relu6(BatchNorm(momentum, name="features_18_1")(x))
        return jax.tree.map(lambda a: a.astype(jnp.float32), taps)
