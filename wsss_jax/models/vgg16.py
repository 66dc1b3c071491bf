"""VGG16 (Simonyan and Zisserman, ICLR 2015) with a large field of view, as in DeepLab and PSA.

The last strides are removed, and the first two fully connected layers are convolutions, ``fc6``
(3×3) and ``fc7`` (1×1). Files have torchvision's names, or those of PSA's program and of Caffe
(``conv1_1.weight``).
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Bool, Float

from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import BatchNorm, Conv, downsample_valid, mask_features, max_pool
from wsss_jax.models.torch_names import torch_name

LEVELS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""The channels and the number of the convolutions of each level, after which there is a pool."""

_FC6_SIDE = 7
_CAFFE_MEAN = (122.675, 116.669, 104.008)
_TORCHVISION = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


class Vgg16(Backbone):
    """VGG16, whose first two levels and, by default, batch norm are frozen.

    The defaults are the network of PSA's program for class activation maps, except for the pixels.
    Its AffinityNet has `fc_dilation` 4. DeepLab-LargeFOV has 12, and pools before ``fc6``.

    Attributes:
      output_stride: at 16, the pool after the fifth level has no stride; at 8, neither has the one
        after the fourth level, and the fifth is dilated by 2.
      batch_norm: whether batch norm follows the convolutions of the five levels, as in
        torchvision's ``vgg16_bn``.
      pixels: how images are normalized, which belongs to the weights: as for those of
        ``torchvision``, or for those of ``caffe``, where only the mean color is subtracted and blue
        comes first.
      pool_size: the side of the pools of stride 2: 3 in DeepLab and PSA, 2 in torchvision.
      pool5: whether there is a 3×3 maximum without stride before ``fc6``.
      fc_features: the channels of ``fc6`` and ``fc7``; 0 leaves both out.
      fc_dilation: the dilation of ``fc6``.
      dropout: the rate of the channel dropout after ``fc6``.
      frozen_levels: how many of the five levels are frozen.
      bn_momentum: the momentum of trained batch norm (see `BatchNorm`); 0 freezes batch norm.
    """

    output_stride: Literal[8, 16] = 8
    batch_norm: bool = False
    pixels: Literal["torchvision", "caffe"] = "torchvision"
    pool_size: Literal[2, 3] = 3
    pool5: bool = False
    fc_features: int = 1024
    fc_dilation: int = 1
    dropout: float = 0.5
    frozen_levels: Literal[0, 1, 2, 3, 4, 5] = 2
    bn_momentum: float = 0.0

    not_in_files: ClassVar[tuple[str, ...]] = ("pool_size", "fc_dilation")

    @property
    def pixel_mean(self) -> tuple[float, float, float]:
        """See `Backbone`."""
        return _CAFFE_MEAN if self.pixels == "caffe" else _TORCHVISION[0]

    @property
    def pixel_std(self) -> tuple[float, float, float]:
        """See `Backbone`."""
        return (1.0, 1.0, 1.0) if self.pixels == "caffe" else _TORCHVISION[1]

    @property
    def tap_strides(self) -> Mapping[str, int]:
        """See `Backbone`."""
        return {"conv3": 4, "conv4": 8, "conv5": self.output_stride, "conv6": self.output_stride}

    @nn.nowrap
    def frozen(self) -> tuple[str, ...]:
        """Freezes the first `frozen_levels` and, unless it is trained, batch norm."""
        found = () if self.bn_momentum else (r"backbone/bn",)
        if self.frozen_levels:
            found += (rf"backbone/(conv|bn)[1-{self.frozen_levels}]_",)
        return found

    @nn.nowrap
    def import_name(self, path: tuple[str, ...]) -> str:
        """Returns torchvision's name (``conv2_1`` is ``features.5``), or PSA's for its pixels."""
        name = torch_name(path)
        module, leaf = name.split(".")
        return name if self.pixels == "caffe" else f"{self._features().get(module, module)}.{leaf}"

    @nn.nowrap
    def _features(self) -> dict[str, str]:
        """Returns torchvision's names of the layers in the five levels."""
        names, place = {}, 0
        for level, (_, layers) in enumerate(LEVELS, 1):
            for number in range(1, layers + 1):
                names[f"conv{level}_{number}"] = f"features.{place}"
                if self.batch_norm:
                    names[f"bn{level}_{number}"] = f"features.{place + 1}"
                place += 3 if self.batch_norm else 2  # with the ReLU
            place += 1  # the pool
        return names

    @nn.nowrap
    def foreign_arrays(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Makes ``fc6`` and ``fc7`` of torchvision's and timm's fully connected layers.

        Of ``classifier.0`` (7×7) and ``classifier.3``, which timm calls ``pre_logits.fc1`` and
        ``pre_logits.fc2``, every fourth channel and every third row and column are taken, for 1,024
        channels. This decimation is that of ParseNet and SSD (Liu et al., ECCV 2016, section 3.1).

        Raises:
          UserError: the file's weights were made for other pixels than `pixels`, by their names.
        """
        other = "features.0.weight" if self.pixels == "caffe" else "conv1_1.weight"
        if other in arrays:
            theirs = "torchvision" if self.pixels == "caffe" else "caffe"
            raise UserError(
                f"expected weights of vgg16 for pixels={self.pixels!r}, found {other}, a name of"
                f" those for pixels={theirs!r}: change this setting of the backbone, or the file"
            )
        found = {}
        layers = _fully_connected(arrays)
        for name, array in arrays.items():
            layer, _, leaf = name.rpartition(".")
            if layer in layers:
                name, array = self._decimated(layers[layer], leaf, array)
            if self.fc_features or not name.startswith(("fc6.", "fc7.")):
                found[name] = array
        return found

    @nn.nowrap
    def _decimated(self, layer: str, leaf: str, array: np.ndarray) -> tuple[str, np.ndarray]:
        """Returns the name and the part of a fully connected layer that `fc_features` keeps."""
        step = max(len(array) // max(self.fc_features, 1), 1)
        if leaf == "weight":
            side = _FC6_SIDE if layer == "fc6" else 1
            kernel = array.reshape(len(array), -1, side, side)
            array = kernel[:, :, ::3, ::3] if layer == "fc6" else kernel[:, ::step]
        return f"{layer}.{leaf}", array[::step]

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
          ``conv3`` (conv3_3, 256 channels), ``conv4`` (conv4_3, 512), ``conv5`` (conv5_3, 512) and
          ``conv6`` (fc7, `fc_features`; without it, the last map before).
        """
        momentum = self.bn_momentum if train else 0.0
        x = x.astype(self.dtype)
        if self.pixels == "caffe":
            x = x[..., ::-1]  # Blue comes first.
        taps: dict[str, Array] = {}
        stride, dilation = 1, 1
        for level, (features, layers) in enumerate(LEVELS, 1):
            if level > 1:
                step = 2 if stride < self.output_stride else 1
                x = max_pool(mask_features(x, valid), self.pool_size if step == 2 else 3, step)
                valid = downsample_valid(valid, step)
                stride, dilation = stride * step, dilation * 2 // step
            for number in range(1, layers + 1):
                layer = Conv(
                    features,
                    dilation=dilation,
                    use_bias=True,
                    dtype=self.dtype,
                    name=f"conv{level}_{number}",
                )
                x = layer(mask_features(x, valid))
                if self.batch_norm:
                    x = BatchNorm(momentum, name=f"bn{level}_{number}")(x)
                x = nn.relu(x)
            if level >= 3:
                taps[f"conv{level}"] = x
        if self.pool5:
            x = max_pool(mask_features(x, valid), 3, 1)
        if self.fc_features:
            rate, width = self.fc_dilation, self.fc_features
            x = mask_features(x, valid)
            x = Conv(width, dilation=rate, use_bias=True, dtype=self.dtype, name="fc6")(x)
            dropout = nn.Dropout(self.dropout, broadcast_dims=(1, 2))
            x = dropout(nn.relu(x), deterministic=not train)
            x = nn.relu(Conv(width, 1, use_bias=True, dtype=self.dtype, name="fc7")(x))
        taps["conv6"] = x
        return taps


def _fully_connected(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns our names of the first two fully connected layers of a file, by its own.

    Other networks have a ``classifier.0`` too, whose shape is another one.
    """
    for names in (("classifier.0", "classifier.3"), ("pre_logits.fc1", "pre_logits.fc2")):
        first, second = (arrays.get(f"{name}.weight", np.zeros((0, 0))) for name in names)
        shapes = [(*one.shape[:1], math.prod(one.shape[1:])) for one in (first, second)]
        width = len(first)
        if shapes == [(width, LEVELS[-1][0] * _FC6_SIDE**2), (width, width)]:
            return dict(zip(names, ("fc6", "fc7"), strict=True))
    return {}
