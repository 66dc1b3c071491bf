"""ResNet38, a wide residual network of output stride 8 with 105 M parameters ("model A1").

Source: Wu, Shen, van den Hengel, *Wider or Deeper* (arXiv 1611.10080), in the form of AffinityNet,
SSENet and SEAM. Blocks are pre-activated, convolutions have no bias, and batch norm is frozen by
default. Submodules have the names of the published PyTorch weights.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import BatchNorm, Conv, downsample_valid, mask_features


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of two 3×3 convolutions, whose dilations are `dilations`."""

    name: str
    middle: int
    out: int
    stride: int = 1
    dilations: tuple[int, int] = (1, 1)


BLOCKS = (
    Block("b2", 128, 128, stride=2),
    *(Block(f"b2_{i}", 128, 128) for i in (1, 2)),
    Block("b3", 256, 256, stride=2),
    *(Block(f"b3_{i}", 256, 256) for i in (1, 2)),
    Block("b4", 512, 512, stride=2),
    *(Block(f"b4_{i}", 512, 512) for i in (1, 2, 3, 4, 5)),
    Block("b5", 512, 1024, dilations=(1, 2)),
    *(Block(f"b5_{i}", 512, 1024, dilations=(2, 2)) for i in (1, 2)),
)
BOTTLENECKS = (("b6", 2048), ("b7", 4096))
TAPS = {"b4": "conv3", "b5": "conv4", "b6": "conv5"}
"""The names in the papers for the normalized inputs of these blocks."""

_MXNET = {
    "weight": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}


class ResidualBlock(nn.Module):
    """A block ``x + conv(relu(bn(conv(relu(bn(x))))))``, with a projection if shapes differ.

    It returns the sum and the first ``relu(bn(x))``.
    """

    block: Block
    dtype: Any = jnp.float32
    momentum: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], valid: Bool[Array, "b h w"] | None
    ) -> tuple[Array, Array]:
        """Applies the block; `valid` belongs to `x`, and that of the result is downsampled."""
        block = self.block
        active = nn.relu(BatchNorm(self.momentum, name="bn_branch2a")(x))
        y = Conv(
            block.middle,
            3,
            stride=block.stride,
            dilation=block.dilations[0],
            dtype=self.dtype,
            name="conv_branch2a",
        )(mask_features(active, valid))
        y = nn.relu(BatchNorm(self.momentum, name="bn_branch2b1")(y))
        small_valid = downsample_valid(valid, block.stride)
        y = Conv(
            block.out, 3, dilation=block.dilations[1], dtype=self.dtype, name="conv_branch2b1"
        )(mask_features(y, small_valid))
        if x.shape[-1] != block.out or block.stride != 1:
            x = Conv(block.out, 1, stride=block.stride, dtype=self.dtype, name="conv_branch1")(
                active
            )
        return x + y, active


class Bottleneck(nn.Module):
    """A block 1×1 → dilated 3×3 → 1×1 with channel dropout before the last two layers.

    It returns the sum with the projected shortcut, and the first ``relu(bn(x))``.
    """

    out: int
    dropout: float
    dilation: int = 4
    dtype: Any = jnp.float32
    momentum: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], valid: Bool[Array, "b h w"] | None, train: bool
    ) -> tuple[Array, Array]:
        """Applies the block; `valid` belongs to `x` and to the result."""

        def active(y: Array, name: str) -> Array:
            return nn.relu(BatchNorm(self.momentum, name=f"bn_{name}")(y))

        def dropped(y: Array) -> Array:
            return nn.Dropout(self.dropout, broadcast_dims=(1, 2))(y, deterministic=not train)

        first = active(x, "branch2a")
        y = Conv(self.out // 4, 1, dtype=self.dtype, name="conv_branch2a")(first)
        y = mask_features(dropped(active(y, "branch2b1")), valid)
        y = Conv(self.out // 2, 3, dilation=self.dilation, dtype=self.dtype, name="conv_branch2b1")(
            y
        )
        y = dropped(active(y, "branch2b2"))
        y = Conv(self.out, 1, dtype=self.dtype, name="conv_branch2b2")(y)
        return Conv(self.out, 1, dtype=self.dtype, name="conv_branch1")(first) + y, first


class ResNet38(Backbone):
    """ResNet38, whose first two levels and, by default, batch norm are frozen.

    Attributes:
      dropout: the dropout rates in the bottlenecks b6 and b7: 0.3 and 0.5 as published, 0.2 and 0.2
        in arXiv 2112.05351.
      remat: whether the backward pass recomputes the activations inside the blocks, which takes
        about a third more time and a fraction of the memory.
      bn_momentum: the momentum of trained batch norm (see `BatchNorm`); 0 freezes batch norm.
    """

    dropout: tuple[float, ...] = (0.3, 0.5)
    remat: bool = False
    bn_momentum: float = 0.0

    pixel_mean: ClassVar[tuple[float, float, float]] = (123.675, 116.28, 103.53)
    pixel_std: ClassVar[tuple[float, float, float]] = (58.395, 57.12, 57.375)

    @property
    def tap_strides(self) -> Mapping[str, int]:
        """See `Backbone`."""
        return {"conv3": 4, "conv4": 8, "conv5": 8, "conv6": 8}

    @nn.nowrap
    def frozen(self) -> tuple[str, ...]:
        """Freezes the first two levels and, unless it is trained, batch norm."""
        first = (r"backbone/conv1a/", r"backbone/b2(_[12])?/")
        return first if self.bn_momentum else (*first, r"backbone/(.*/)?bn[^/]*/")

    @nn.nowrap
    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Gives the ImageNet weights, published for MXNet, the names of the PyTorch weights.

        ``arg:res4b1_branch2a_weight`` becomes ``b4_1.conv_branch2a.weight``, and
        ``bn4a_branch2a_gamma`` becomes ``b4.bn_branch2a.weight``. The ImageNet classifier is left
        out, and other names stay as they are.
        """
        return {
            _from_mxnet(name): array
            for name, array in arrays.items()
            if not re.match(r"(arg:)?linear1000_", name)
        }

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """See `Backbone`.

        Returns:
          ``conv3`` (256 channels), ``conv4`` (512), ``conv5`` (1024) and ``conv6`` (4096).
        """
        residual, bottleneck = ResidualBlock, Bottleneck
        if self.remat:
            residual = nn.remat(ResidualBlock)
            bottleneck = nn.remat(Bottleneck, static_argnums=(3,))
        momentum = self.bn_momentum if train else 0.0
        taps: dict[str, Array] = {}
        x = Conv(64, 3, dtype=self.dtype, name="conv1a")(mask_features(x.astype(self.dtype), valid))
        for block in BLOCKS:
            x, active = residual(block, self.dtype, momentum, name=block.name)(x, valid)
            if block.name in TAPS:
                taps[TAPS[block.name]] = active
            valid = downsample_valid(valid, block.stride)
        for (name, out), rate in zip(BOTTLENECKS, self.dropout, strict=True):
            layer = bottleneck(out, rate, dtype=self.dtype, momentum=momentum, name=name)
            x, active = layer(x, valid, train)
            if name in TAPS:
                taps[TAPS[name]] = active
        taps["conv6"] = nn.relu(BatchNorm(momentum, name="bn7")(x))
        return taps


def _from_mxnet(name: str) -> str:
    """Returns the PyTorch name of an array published for MXNet, and other names unchanged."""
    match = re.fullmatch(rf"(?:(?:arg|aux):)?(\w+?)_({'|'.join(_MXNET)})", name)
    if not match:
        return name
    layer, leaf = match[1], _MXNET[match[2]]
    in_block = re.fullmatch(r"(res|bn)(\d)(?:a|b(\d+))_(branch\w+)", layer)
    if in_block:
        kind, level, number, branch = in_block.groups()
        block = f"b{level}_{number}" if number else f"b{level}"
        layer = f"{block}.{'conv' if kind == 'res' else 'bn'}_{branch}"
    return f"{layer}.{leaf}"
