"""Maps of several views of an image, upsampled and summed, for worker processes: imports no JAX."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from wsss_jax.host.interpolation import interpolation_matrix

Size = tuple[int, int]

_MATRICES = 32


class View(NamedTuple):
    """Low-resolution maps of an image at one scale, `scaled` = (height, width), flipped or not."""

    maps: Float[np.ndarray, "k h w"]
    scaled: Size
    flipped: bool


@dataclasses.dataclass(frozen=True)
class ViewMaps:
    """What a network says of an image, at its own low resolution.

    Attributes:
      size: height and width of the image.
      channels: the network's channels that the maps are of.
      views: of one scale after the other.
      upsample: ``corners`` or ``direct``, see `upsampled`.
      relu_each: whether negative responses of each view are dropped before the sum.
    """

    size: Size
    channels: Int[np.ndarray, " k"]
    views: tuple[View, ...]
    upsample: str
    relu_each: bool

    def summed(self) -> Float32[np.ndarray, "k H W"]:
        """The sum over all views at the image's size; zeros without any."""
        total = np.zeros((len(self.channels), *self.size), np.float32)
        for maps, scaled, flipped in self.views:
            full = upsampled(maps, scaled, self.size, self.upsample)
            if self.relu_each:
                full = np.maximum(full, 0)
            total += full[:, :, ::-1] if flipped else full
        return total


def upsampled(
    maps: Float[np.ndarray, "k h w"], scaled: Size, size: Size, how: str
) -> Float32[np.ndarray, "k H W"]:
    """Maps of an image of size `scaled` at `size`, bilinearly.

    ``corners``: to the scaled image with aligned corners, then to `size`. ``direct``: to `size` at
    once.
    """
    rows = _matrix(maps.shape[1], scaled[0], size[0], how)
    columns = _matrix(maps.shape[2], scaled[1], size[1], how)
    return rows @ maps.astype(np.float32) @ columns.T


@functools.lru_cache(_MATRICES)
def _matrix(low: int, middle: int, full: int, how: str) -> Float32[np.ndarray, "rows columns"]:
    if how == "direct":
        return interpolation_matrix(low, full, align_corners=False)
    return interpolation_matrix(middle, full, align_corners=False) @ interpolation_matrix(
        low, middle, align_corners=True
    )
