"""A dilated MobileNetV2 (Sandler et al., CVPR 2018), the light backbone.

Files have torchvision's names, or timm's. There are published weights of two forms, TensorFlow's
and torchvision's (also timm's), which were trained with another normalization of images and another
padding: before the image, layers of stride 2 add no zeros in TensorFlow (at even sizes) and one in
torchvision.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar, Literal

import flax.linen as nn
import numpy as np

from wsss_jax.errors import UserError
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
      form: the program that trained the weights, which decides how images are normalized and
        padded.
    """

    taps: tuple[int, int] = (5, 12)
    form: Literal["tensorflow", "torchvision"] = "tensorflow"

    classifier: ClassVar[str] = "classifier.1"
    not_in_files: ClassVar[tuple[str, ...]] = ("form",)

    @property
    def pixel_mean(self) -> tuple[float, float, float]:
        """See `Backbone`."""
        torchvision = self.form == "torchvision"
        return (123.675, 116.28, 103.53) if torchvision else (127.5, 127.5, 127.5)

    @property
    def pixel_std(self) -> tuple[float, float, float]:
        """See `Backbone`."""
        torchvision = self.form == "torchvision"
        return (58.395, 57.12, 57.375) if torchvision else (127.5, 127.5, 127.5)

    @property
    def stem_before(self) -> int:
        """See `InvertedResidualNetwork`."""
        return int(self.form == "torchvision")

    @nn.nowrap
    def groups(self) -> tuple[Group, ...]:
        """See `InvertedResidualNetwork`."""
        before = self.stem_before
        return tuple(dataclasses.replace(g, before=before * (g.stride == 2)) for g in _GROUPS)

    @nn.nowrap
    def tap_blocks(self) -> tuple[int, int, int]:
        """See `InvertedResidualNetwork`."""
        return (_STRIDE_4, *self.taps)

    @nn.nowrap
    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Gives the arrays of timm's files torchvision's names.

        Raises:
          UserError: the file is timm's, whose network has torchvision's form, and `form` is not.
        """
        if "conv_stem.weight" in arrays and self.form != "torchvision":
            raise UserError(
                f"expected weights of mobilenet_v2 for form={self.form!r}, found conv_stem.weight,"
                " a name of timm's, which are for form='torchvision': change this setting of the"
                " backbone, or the file"
            )
        return super().foreign_arrays(arrays)

    @nn.nowrap
    def import_name(self, path: tuple[str, ...]) -> str:
        """Returns torchvision's name: ``features_4/conv_1_0`` is ``features.4.conv.1.0``."""
        return re.sub(r"_(?=\d)", ".", torch_name(path))
