"""What a backbone is.

A backbone is one module of this package (or any module: recipes take dotted names) with one
subclass of `Backbone`. Its fields are its settings.
"""

import abc
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import Dtype
from wsss_jax.settings import supplied


class Backbone(nn.Module, abc.ABC):
    """A network from images to feature maps, on which the methods build their heads.

    Networks take a backbone as a submodule called ``backbone``; the patterns of `frozen` and the
    names of weights in files rest on that.

    Attributes:
      dtype: of convolutions and activations; parameters are float32. The method supplies it.
    """

    room: ClassVar[str] = "wsss_jax.models"

    pixel_mean: ClassVar[tuple[float, float, float]]
    """Mean of RGB values in 0..255 that images are normalized with."""
    pixel_std: ClassVar[tuple[float, float, float]]
    """Standard deviation of RGB values in 0..255 that images are normalized with."""
    exact_padding: ClassVar[bool] = True
    """Whether the features of a padded image equal those of the image alone."""

    dtype: Dtype = supplied(default=jnp.float32, kw_only=True)

    @property
    @abc.abstractmethod
    def tap_strides(self) -> Mapping[str, int]:
        """Image pixels per feature pixel of every feature map, by name."""

    @abc.abstractmethod
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """Feature maps of normalized images.

        Args:
          x: normalized RGB.
          valid: the top-left rectangle of each image that is no padding. With `exact_padding`
            features there are those of the unpadded image.
          train: turns dropout on (it needs a ``dropout`` key) and, where batch norm is trained, the
            batch's statistics.

        Returns:
          The maps that `tap_strides` names, [b, h', w', c] each: ``conv3`` of stride 4, ``conv4``,
          ``conv5`` and ``conv6``, the last one; ``conv2``, if any, is the stem's, of stride 4 too.
        """

    @nn.nowrap
    def frozen(self) -> tuple[str, ...]:
        """Regular expressions for the beginning of the paths of parameters that no recipe trains.

        Paths begin with ``backbone/``. By default everything is trained.
        """
        return ()

    @nn.nowrap
    def import_name(self, path: tuple[str, ...]) -> str:
        """PyTorch's name of a module, given its path relative to the backbone."""
        return ".".join(path)

    @nn.nowrap
    def foreign_name(self, name: str) -> str | None:
        """The PyTorch name of an array in a file with other names; None leaves the array out."""
        return name
