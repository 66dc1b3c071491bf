"""A dilated MobileNetV2 (Sandler et al., CVPR 2018), the light backbone.

Parameters have torchvision's names. Padding follows TensorFlow's SAME rule for even sizes: a layer
of stride 2 adds no row before and one row after (odd sizes get one more row after).
"""

import re
from typing import ClassVar

import flax.linen as nn

from wsss_jax.models.inverted_residual import Group, InvertedResidualNetwork
from wsss_jax.models.torch_names import torch_name

# The seven groups of table 2 of the paper.
_GROUPS = (
    Group(1, 16, 1, 1),
    Group(6, 24, 2, 2),
    Group(6, 32, 3, 2),
    Group(6, 64, 4, 2),
    Group(6, 96, 3, 1),
    Group(6, 160, 3, 2),
    Group(6, 320, 1, 1),
)
_STRIDE_4 = 3


class MobileNetV2(InvertedResidualNetwork):
    """MobileNetV2 of width 1.0; stem, blocks of stride 4 and, by default, batch norm are frozen.

    Attributes:
      taps: the numbers of the blocks whose results are ``conv4`` and ``conv5``.
    """

    taps: tuple[int, int] = (5, 12)

    pixel_mean: ClassVar[tuple[float, float, float]] = (127.5, 127.5, 127.5)
    pixel_std: ClassVar[tuple[float, float, float]] = (127.5, 127.5, 127.5)
    classifier: ClassVar[str] = "classifier.1"

    @nn.nowrap
    def groups(self) -> tuple[Group, ...]:
        """See `InvertedResidualNetwork`."""
        return _GROUPS

    @nn.nowrap
    def tap_blocks(self) -> tuple[int, int, int]:
        """See `InvertedResidualNetwork`."""
        return (_STRIDE_4, *self.taps)

    @nn.nowrap
    def import_name(self, path: tuple[str, ...]) -> str:
        """Returns torchvision's name: ``features_4/conv_1_0`` is ``features.4.conv.1.0``."""
        return re.sub(r"_(?=\d)", ".", torch_name(path))
