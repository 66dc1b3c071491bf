"""EfficientNet-Lite0, 1 and 2 with dilation: better ImageNet features at MobileNetV2's size.

EfficientNet (Tan and Le, ICML 2019) without squeeze-and-excitation and with ReLU6. Files have the
names of ``efficientnet-lite-pytorch``, or timm's. The network was trained with TensorFlow's SAME
padding, which depends on the size of the image; here every layer has the padding of the variant's
own resolution (224, 240 or 260 pixels), whatever the size.
"""

import math
from typing import ClassVar, Literal

import flax.linen as nn

from wsss_jax.models.inverted_residual import Group, InvertedResidualNetwork
from wsss_jax.models.torch_names import torch_name

# (width, depth, resolution) of the variants and (expansion, channels, blocks, stride, kernel) of
# the groups of Lite0, from TensorFlow's program, efficientnet/lite/efficientnet_lite_builder.py.
_VARIANTS = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260)}
_GROUPS = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_FILE_LAYERS = ("expand_conv", "bn0", "depthwise_conv", "bn1", "project_conv", "bn2")
_LAYERS = ("conv_0_0", "conv_0_1", "conv_1_0", "conv_1_1", "conv_2", "conv_3")
_FIRST_LAYERS = ("conv_0_0", "conv_0_1", "conv_1", "conv_2")  # There is no expansion.


class EfficientNetLite(InvertedResidualNetwork):
    """EfficientNet-Lite; stem, blocks of stride 4 and, by default, batch norm are frozen.

    Attributes:
      variant: 0, 1 or 2, which have 3.4, 4.1 and 4.8 million parameters without the classifier.
    """

    variant: Literal[0, 1, 2] = 0

    pixel_mean: ClassVar[tuple[float, float, float]] = (127.0, 127.0, 127.0)
    pixel_std: ClassVar[tuple[float, float, float]] = (128.0, 128.0, 128.0)
    classifier: ClassVar[str] = "_fc"
    epsilon: ClassVar[float] = 1e-3

    @property
    def resolution(self) -> int:
        """The side in pixels of the images that the weights were trained with."""
        return _VARIANTS[self.variant][2]

    @nn.nowrap
    def groups(self) -> tuple[Group, ...]:
        """See `InvertedResidualNetwork`."""
        width, depth, _ = _VARIANTS[self.variant]
        size = self.resolution // 2  # after the stem
        groups = []
        for number, (expansion, channels, blocks, stride, kernel) in enumerate(_GROUPS):
            before = 0
            if stride == 2:
                new = -(-size // 2)
                before = ((new - 1) * 2 + kernel - size) // 2
                size = new
            if 0 < number < len(_GROUPS) - 1:  # The depth of both ends is fixed.
                blocks = math.ceil(depth * blocks)
            features = _rounded(width * channels)
            groups.append(Group(expansion, features, blocks, stride, kernel, before))
        return tuple(groups)

    @nn.nowrap
    def tap_blocks(self) -> tuple[int, int, int]:
        """Returns the last blocks of stride 4, 8 and 16."""
        blocks = [group.blocks for group in self.groups()]
        return sum(blocks[:2]), sum(blocks[:3]), sum(blocks[:5])

    @nn.nowrap
    def import_name(self, path: tuple[str, ...]) -> str:
        """Returns the name in files: ``features_4/conv_1_0`` is ``_blocks.3._depthwise_conv``."""
        collection, module, *layer, leaf = path
        number = int(module.split("_")[1])
        if layer:
            skipped = 2 if number == 1 else 0
            names = _FIRST_LAYERS if number == 1 else _LAYERS
            name = f"_{_FILE_LAYERS[skipped + names.index(layer[0])]}"
            modules = ["_blocks", str(number - 1), name]
        else:
            ends = ("_conv_stem", "_bn0") if number == 0 else ("_conv_head", "_bn1")
            modules = [ends[int(module[-1])]]
        return torch_name((collection, *modules, leaf))


def _rounded(channels: float) -> int:
    """Rounds to a multiple of 8 that is not below nine tenths of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
