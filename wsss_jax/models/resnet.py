"""ResNet-50 and ResNet-101 (He et al., CVPR 2016) of all forms in which weights are published.

Convolutions have no bias, and batch norm is frozen by default. Parameters have torchvision's names
(``layer1.0.downsample.0.weight`` is ``layer1_0/downsample_0/kernel`` here). The defaults are the
network of IRNet's program (CVPR 2019), which only removes the last stride; DeepLab also dilates the
layers after a stride that is removed, and at an output stride of 32 the network is torchvision's.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import BatchNorm, Conv, downsample_valid, mask_features, max_pool
from wsss_jax.models.torch_names import torch_name

BLOCKS: Mapping[int, tuple[int, int, int, int]] = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""The number of blocks in layer1 to layer4, by depth."""

_EXPANSION = 4


class Bottleneck(nn.Module):
    """A block ``relu(x + 1×1(3×3(1×1(x))))``, whose shortcut may be projected.

    Attributes:
      width: the channels of the 3×3 layer; the result has four times as many.
      stride: the stride of the block and the projection.
      dilation: the dilation of the 3×3 layer.
      project: whether the shortcut is projected, as in the first block of a layer.
      momentum: the momentum of batch norm; see `BatchNorm`.
      dtype: the type of the convolutions.
      stride_first: whether the first 1×1 layer has the stride, and not the 3×3 layer.
      epsilon: the number that batch norm adds to the variance.
    """

    width: int
    stride: int = 1
    dilation: int = 1
    project: bool = False
    momentum: float = 0.0
    dtype: Any = jnp.float32
    stride_first: bool = False
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], valid: Bool[Array, "b h w"] | None
    ) -> Float[Array, "b p q d"]:
        """Applies the block; `valid` belongs to `x`, and that of the result is downsampled."""

        def norm(y: Array, name: str) -> Array:
            return BatchNorm(self.momentum, self.epsilon, name=name)(y)

        out = self.width * _EXPANSION
        strides = (self.stride, 1) if self.stride_first else (1, self.stride)
        first = Conv(self.width, 1, strides[0], dtype=self.dtype, name="conv1")
        y = nn.relu(norm(first(x), "bn1"))
        middle = Conv(self.width, 3, strides[1], self.dilation, dtype=self.dtype, name="conv2")
        y = nn.relu(norm(middle(mask_features(y, downsample_valid(valid, strides[0]))), "bn2"))
        y = norm(Conv(out, 1, dtype=self.dtype, name="conv3")(y), "bn3")
        if self.project:
            x = Conv(out, 1, self.stride, dtype=self.dtype, name="downsample_0")(x)
            x = norm(x, "downsample_1")
        return nn.relu(x.astype(y.dtype) + y)


class ResNet(Backbone):
    """ResNet-50 or ResNet-101.

    Attributes:
      depth: the number of layers.
      output_stride: at 16, layer4 has no stride; at 8, layer3 and layer4 have none.
      stride_on: the layer of a block that has its stride: ``3x3`` in torchvision's ("v1.5")
        and IRNet's program, and ``1x1``, the first layer, in the paper's networks and those that
        were converted from Caffe or MXNet ("v1").
      dilated: whether layers that lost a stride are dilated instead, where the first block of each
        has the dilation of the layer before (DeepLab). Otherwise their receptive field is smaller,
        as in IRNet's program.
      frozen_layers: how many of layer1 to layer4 are frozen, together with the stem; -1 trains the
        stem too. It is 2 for the CAM of IRNet's program, where gradients stop after layer2.
      remat: whether the backward pass recomputes the activations inside the blocks.
      bn_momentum: the momentum of trained batch norm (see `BatchNorm`); 0 freezes batch norm.
      bn_epsilon: the number that batch norm adds to the variance. It belongs to the weights:
        PyTorch's is 1e-5, and TensorFlow's is often 1e-3.
    """

    depth: Literal[50, 101] = 50
    output_stride: Literal[8, 16, 32] = 16
    stride_on: Literal["3x3", "1x1"] = "3x3"
    dilated: bool = False
    frozen_layers: Literal[-1, 0, 1, 2, 3, 4] = 1
    remat: bool = False
    bn_momentum: float = 0.0
    bn_epsilon: float = 1e-5

    pixel_mean: ClassVar[tuple[float, float, float]] = (123.675, 116.28, 103.53)
    pixel_std: ClassVar[tuple[float, float, float]] = (58.395, 57.12, 57.375)
    classifier: ClassVar[str] = "fc"
    not_in_files: ClassVar[tuple[str, ...]] = ("stride_on", "bn_epsilon")

    @property
    def tap_strides(self) -> Mapping[str, int]:
        """See `Backbone`."""
        last = self.output_stride
        return {"conv2": 4, "conv3": 4, "conv4": 8, "conv5": min(last, 16), "conv6": last}

    @nn.nowrap
    def frozen(self) -> tuple[str, ...]:
        """Freezes the stem, the first `frozen_layers` and, unless it is trained, batch norm."""
        found = () if self.frozen_layers < 0 else (r"backbone/(conv1|bn1)/",)
        if self.frozen_layers > 0:
            found += (rf"backbone/layer[1-{self.frozen_layers}]_\d+/",)
        if not self.bn_momentum:
            found += (r"backbone/bn1/", r"backbone/layer\d_\d+/(bn\d|downsample_1)/")
        return found

    @nn.nowrap
    def import_name(self, path: tuple[str, ...]) -> str:
        """Returns torchvision's name: ``layer1_0/downsample_0`` is ``layer1.0.downsample.0``."""
        return re.sub(r"_(?=\d)", ".", torch_name(path))

    @nn.nowrap
    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Removes the prefix ``resnet50.`` of IRNet's program, which saves the layers twice more.

        The copies are called ``stage1`` to ``stage5`` and ``backbone.0`` to ``backbone.4`` there.
        """
        if not any(name.startswith("resnet50.") for name in arrays):
            return arrays
        return {
            name.removeprefix("resnet50."): array
            for name, array in arrays.items()
            if not re.match(r"(stage|backbone\.)\d\.", name)
        }

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """See `Backbone`; there is no dropout.

        Returns:
          ``conv2`` (the stem, 64 channels), ``conv3`` (256), ``conv4`` (512), ``conv5`` (1024) and
          ``conv6`` (2048).
        """
        momentum = self.bn_momentum if train else 0.0
        x = mask_features(x.astype(self.dtype), valid)
        x = Conv(64, 7, 2, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(BatchNorm(momentum, self.bn_epsilon, name="bn1")(x))
        valid = downsample_valid(valid, 2)
        x = max_pool(mask_features(x, valid), 3, 2)
        valid = downsample_valid(valid, 2)
        taps = {"conv2": x}
        block = nn.remat(Bottleneck) if self.remat else Bottleneck
        stride, dilation = 4, 1
        for layer, blocks in enumerate(BLOCKS[self.depth], 1):
            step, first = 1 if layer == 1 else 2, dilation
            if stride * step > self.output_stride:
                step, dilation = 1, dilation * (step if self.dilated else 1)
            stride *= step
            for number in range(blocks):
                start = number == 0
                x = block(
                    64 << (layer - 1),
                    step if start else 1,
                    first if start else dilation,
                    start,
                    momentum,
                    self.dtype,
                    self.stride_on == "1x1",
                    self.bn_epsilon,
                    name=f"layer{layer}_{number}",
                )(x, valid)
                valid = downsample_valid(valid, step) if start else valid
            taps[f"conv{layer + 2}"] = x
        return taps
