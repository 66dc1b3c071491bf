"""Networks of inverted residual blocks (Sandler et al., CVPR 2018) with dilation and taps.

MobileNetV2 and EfficientNet-Lite are such networks. Both name their parameters as torchvision names
those of MobileNetV2 (``features.4.conv.1.0.weight`` is ``features_4/conv_1_0/kernel`` here), and
read timm's files (``blocks.2.0.conv_dw.weight``).

A layer of stride 2 adds a fixed number of zero rows before the image, whatever its size, and as
many after it as it needs for ``ceil(size / 2)`` rows. So an image has the same sampling grid alone
and inside a larger canvas.
"""

import abc
import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import (
    BatchNorm,
    Conv,
    DepthwiseConv,
    Dtype,
    downsample_valid,
    mask_features,
    same_padding,
)
from wsss_jax.ops.xla_conv import Padding

_LAST = 1280
_TIMM_ENDS = {"conv_stem": "0_0", "bn1": "0_1", "conv_head": "{}_0", "bn2": "{}_1"}
_TIMM_LAYERS = {
    "conv_pw": "conv_0_0",
    "bn1": "conv_0_1",
    "conv_dw": "conv_1_0",
    "bn2": "conv_1_1",
    "conv_pwl": "conv_2",
    "bn3": "conv_3",
}
_TIMM_LAYERS_WITHOUT_EXPANSION = {
    "conv_dw": "conv_0_0",
    "bn1": "conv_0_1",
    "conv_pw": "conv_1",
    "bn2": "conv_2",
}


@dataclasses.dataclass(frozen=True)
class Group:
    """Blocks with the same number of channels.

    Attributes:
      expansion: the factor by which the depthwise layers have more channels than the input.
      features: the channels of the results.
      blocks: the number of blocks.
      stride: the stride of the first block.
      kernel_size: the side of the depthwise kernels.
      before: the zero rows, and columns, before the image in the layer of stride 2.
    """

    expansion: int
    features: int
    blocks: int
    stride: int
    kernel_size: int = 3
    before: int = 0


class InvertedResidual(nn.Module):
    """A block of a 1×1 expansion, a depthwise layer and a 1×1 projection, with ReLU6.

    Its fields are those of `Group`, for one block, and of `InvertedResidualNetwork`.
    """

    expansion: int
    features: int
    kernel_size: int
    stride: int
    dilation: int
    before: int
    dtype: Dtype
    epsilon: float
    momentum: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], valid: Bool[Array, "b h w"] | None
    ) -> Float[Array, "b p q d"]:
        """Applies the block; `valid` belongs to `x`."""

        def norm(y: Array, name: str) -> Array:
            return BatchNorm(self.momentum, self.epsilon, name=name)(y)

        y, layer = x, 0
        if self.expansion > 1:
            y = Conv(x.shape[-1] * self.expansion, 1, name="conv_0_0", dtype=self.dtype)(y)
            y = nn.relu6(norm(y, "conv_0_1"))
            layer = 1
        size = self.kernel_size
        padding = _padding(y, size, self.stride, self.dilation, self.before)
        y = DepthwiseConv(
            size, self.stride, self.dilation, padding, name=f"conv_{layer}_0", dtype=self.dtype
        )(mask_features(y, valid))
        y = nn.relu6(norm(y, f"conv_{layer}_1"))
        y = Conv(self.features, 1, name=f"conv_{layer + 1}", dtype=self.dtype)(y)
        y = norm(y, f"conv_{layer + 2}")
        return x + y if self.stride == 1 and x.shape[-1] == self.features else y


class InvertedResidualNetwork(Backbone):
    """A stem of stride 2, groups of inverted residual blocks, and a 1×1 layer of 1,280 channels.

    Attributes:
      output_stride: the output stride; strides beyond it become dilations.
      remat: whether the backward pass recomputes the activations inside the blocks.
      bn_momentum: the momentum of trained batch norm (see `BatchNorm`); 0 freezes batch norm.
    """

    output_stride: Literal[8, 16, 32] = 16
    remat: bool = False
    bn_momentum: float = 0.0

    epsilon: ClassVar[float] = 1e-5
    """The number that batch norm adds to the variance."""

    @property
    def stem_before(self) -> int:
        """The zero rows, and columns, before the image in the stem."""
        return 0

    @nn.nowrap
    @abc.abstractmethod
    def groups(self) -> tuple[Group, ...]:
        """Returns the groups after the stem."""

    @nn.nowrap
    @abc.abstractmethod
    def tap_blocks(self) -> tuple[int, int, int]:
        """Returns the numbers of the blocks, from 1, whose results are ``conv3`` to ``conv5``."""

    @nn.nowrap
    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Gives the arrays of timm's files the names of `import_name`."""
        if "conv_stem.weight" not in arrays:
            return arrays
        return {self._from_timm(name): array for name, array in arrays.items()}

    @nn.nowrap
    def _from_timm(self, name: str) -> str:
        module, _, leaf = name.rpartition(".")
        groups = self.groups()
        if module == "classifier":
            return f"{self.classifier}.{leaf}"
        if module in _TIMM_ENDS:
            last = 1 + sum(group.blocks for group in groups)
            return self.import_name(("", f"features_{_TIMM_ENDS[module].format(last)}", leaf))
        place = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)", module)
        if place is None:
            return name
        number, position, layer = int(place[1]), int(place[2]), place[3]
        group = groups[number] if number < len(groups) else None
        if group is None or position >= group.blocks:
            return name  # of a deeper network
        layers = _TIMM_LAYERS if group.expansion > 1 else _TIMM_LAYERS_WITHOUT_EXPANSION
        if layer not in layers:
            return name
        block = 1 + sum(one.blocks for one in groups[:number]) + position
        return self.import_name(("", f"features_{block}", layers[layer], leaf))

    @property
    def tap_strides(self) -> Mapping[str, int]:
        """See `Backbone`."""
        strides, stride = [], 2  # the strides of the blocks after a stem of stride 2
        for group in self.groups():
            stride = min(stride * group.stride, self.output_stride)
            strides += group.blocks * [stride]
        taps = (strides[block - 1] for block in self.tap_blocks())
        return {**dict(zip(("conv3", "conv4", "conv5"), taps, strict=True)), "conv6": stride}

    @nn.nowrap
    def frozen(self) -> tuple[str, ...]:
        """Freezes the stem, the blocks up to ``conv3`` and, unless it is trained, batch norm."""
        last = self.tap_blocks()[0]
        first = (r"backbone/features_0_[01]/", rf"backbone/features_[1-{last}]/")
        return first if self.bn_momentum else (*first, r"backbone/.*/(scale|bias)$")

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

        def norm(y: Array, name: str) -> Array:
            return nn.relu6(BatchNorm(momentum, self.epsilon, name=name)(y))

        x = mask_features(x.astype(self.dtype), valid)
        padding = _padding(x, 3, 2, 1, self.stem_before)
        x = Conv(32, 3, 2, padding=padding, name="features_0_0", dtype=self.dtype)(x)
        x = norm(x, "features_0_1")
        valid = downsample_valid(valid, 2)
        block = nn.remat(InvertedResidual) if self.remat else InvertedResidual
        names = dict(zip(self.tap_blocks(), ("conv3", "conv4", "conv5"), strict=True))
        taps: dict[str, Array] = {}
        number = 0
        for number, (group, stride, dilation) in enumerate(self._blocks(), 1):
            x = block(
                group.expansion,
                group.features,
                group.kernel_size,
                stride,
                dilation,
                group.before,
                self.dtype,
                self.epsilon,
                momentum,
                name=f"features_{number}",
            )(x, valid)
            valid = downsample_valid(valid, stride)
            if number in names:
                taps[names[number]] = x
        x = Conv(_LAST, 1, name=f"features_{number + 1}_0", dtype=self.dtype)(x)
        taps["conv6"] = norm(x, f"features_{number + 1}_1")
        return jax.tree.map(lambda a: a.astype(jnp.float32), taps)

    @nn.nowrap
    def _blocks(self) -> Iterator[tuple[Group, int, int]]:
        """Yields the group, the stride and the dilation of every block."""
        total, dilation = 2, 1
        for group in self.groups():
            stride, rate = group.stride, dilation
            if total * stride > self.output_stride:
                # The first block of a dilated group keeps the previous rate, as in DeepLab.
                stride, dilation = 1, dilation * group.stride
            total *= stride
            for position in range(group.blocks):
                yield (group, stride, rate) if position == 0 else (group, 1, dilation)


def _padding(x: Array, size: int, stride: int, dilation: int, before: int) -> Padding:
    """Returns the padding of a layer whose kernel has `size`² taps; see the module."""
    if stride == 1:
        return same_padding(size, dilation)
    rows, columns = (size - 2 + n % 2 - before for n in x.shape[1:3])
    return ((before, rows), (before, columns))
