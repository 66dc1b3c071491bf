"""Upsamples and sums the maps of an image's views, in worker processes that do not import JAX."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

from wsss_jax.host.interpolation import interpolation_matrix

Size = tuple[int, int]

_MATRICES = 32


class View(NamedTuple):
    """Low-resolution maps of an image at the size `scaled` = (height, width), flipped or not."""

    maps: Float[np.ndarray, "k h w"]
    scaled: Size
    flipped: bool


@dataclasses.dataclass(frozen=True)
class ViewMaps:
    """The maps of a network for all views of an image, at the network's low resolution.

    Attributes:
      size: the height and width of the image.
      channels: the channels of the network to which the maps belong.
      views: the views, one scale after the other.
      upsample: ``corners`` or ``direct``; see `upsampled`.
      relu_each: whether negative responses of each view are set to zero before the sum.
    """

    size: Size
    channels: Int[np.ndarray, " k"]
    views: tuple[View, ...]
    upsample: str
    relu_each: bool

    def summed(self, rows: slice = slice(None)) -> Float32[np.ndarray, "k H W"]:
        """Returns the sum over all views at the image's size, which is zero without views.

        Args:
          rows: the rows of the image to compute.
        """
        count = len(range(self.size[0])[rows])
        total = np.zeros((len(self.channels), count, self.size[1]), np.float32)
        for maps, scaled, flipped in self.views:
            full = upsampled(maps, scaled, self.size, self.upsample, rows)
            if self.relu_each:
                full = np.maximum(full, 0)
            total += full[:, :, ::-1] if flipped else full
        return total


class Reduced(NamedTuple):
    """What the device made of the sum over all views of an image: of each channel, or of all.

    Attributes:
      channels: the channels of the network, like those of `ViewMaps`.
      values: one map per channel, or one for all of them, as the stage asked for.
    """

    channels: Int[np.ndarray, " k"]
    values: Shaped[np.ndarray, "*k H W"]


def upsampled(
    maps: Float[np.ndarray, "k h w"],
    scaled: Size,
    size: Size,
    how: str,
    part: slice = slice(None),
) -> Float32[np.ndarray, "k H W"]:
    """Upsamples maps of an image of size `scaled` to `size`, bilinearly.

    With ``corners``, maps are resized to the size of the scaled image with aligned corners, and
    then to `size`. With ``direct``, they are resized to `size` in one step. The result has the rows
    `part` of it.
    """
    rows = _matrix(maps.shape[1], scaled[0], size[0], how)[part]
    columns = _matrix(maps.shape[2], scaled[1], size[1], how)
    return rows @ maps.astype(np.float32) @ columns.T


@functools.lru_cache(_MATRICES)
def _matrix(low: int, middle: int, full: int, how: str) -> Float32[np.ndarray, "rows columns"]:
    if how == "direct":
        return interpolation_matrix(low, full, align_corners=False)
    return interpolation_matrix(middle, full, align_corners=False) @ interpolation_matrix(
        low, middle, align_corners=True
    )
