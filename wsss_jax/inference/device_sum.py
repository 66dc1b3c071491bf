"""Upsamples and sums the maps of images over scales and flips on the device.

On a GPU or TPU, the products with two interpolation matrices take no time, while the host would be
busy with them for longer than with anything else. Only the channels that an image needs are
upsampled, and only their reduced sum crosses to the host. `wsss_jax.host.upsampling` is the same on
the host, with the same weights.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from wsss_jax.host.interpolation import linear_weights
from wsss_jax.ops.buckets import Size

Reduce = Callable[[Float32[Array, "n k H W"], Bool[Array, "n 1 H W"]], Array]
"""Turns sums into what the host gets, [n, ..., H, W], given the pixels that belong to the image.

Channels beyond those of an image are −∞.
"""


class Wanted(NamedTuple):
    """What is computed for the rows of a batch.

    Attributes:
      channels: the channels to keep, filled up with zeros.
      counts: the number of channels of each image.
      sizes: the heights and widths of the images.
    """

    channels: Int32[np.ndarray, "n k"]
    counts: Int32[np.ndarray, " n"]
    sizes: Int32[np.ndarray, "n 2"]


def wanted(
    channels: Sequence[Int[np.ndarray, " _"]], sizes: Sequence[Size], rows: int, of: int
) -> Wanted:
    """Returns the inputs of a batch of `rows` images, some of which may be missing.

    The number of channels is filled up to 2, 8, 32, ... or to the network's number of channels
    `of`, so that few programs are compiled.
    """
    most, slots = max(map(len, channels), default=0), 2
    while slots < most:
        slots *= 4
    kept = np.zeros((rows, min(slots, of)), np.int32)
    counts, filled = np.zeros(rows, np.int32), np.ones((rows, 2), np.int32)
    for row, (own, size) in enumerate(zip(channels, sizes, strict=True)):
        kept[row, : len(own)], counts[row], filled[row] = own, len(own), size
    return Wanted(kept, counts, filled)


@functools.partial(
    jax.jit,
    static_argnames=("copies", "padded", "upsample", "relu_each"),
    donate_argnames=("total",),
)
def add_scale(
    total: Float32[Array, "n k H W"],
    maps: Float[Array, "rows h w c"],
    low: Int[Array, "n 2"],
    scaled: Int[Array, "n 2"],
    images: Wanted,
    *,
    copies: int,
    padded: Size,
    upsample: Literal["corners", "direct"],
    relu_each: bool,
) -> Float32[Array, "n k H W"]:
    """Adds the maps of one scale to the sums of a batch.

    Args:
      total: the sums so far, at the size of the images.
      maps: the network's maps of each image and, if `copies` is 2, of its flipped copy.
      low: the heights and widths of the valid maps.
      scaled: those of the scaled images.
      images: the channels and sizes of the images.
      copies: 2 with flipped copies, otherwise 1.
      padded: the padded shape of the scaled images.
      upsample: see `wsss_jax.host.upsampling.upsampled`.
      relu_each: whether negative responses are set to zero before they are added.
    """
    count, _, height, width = total.shape
    maps = maps.reshape(count, copies, *maps.shape[1:])
    channels = jnp.asarray(images.channels)[:, None, None, None, :]
    maps = jnp.take_along_axis(maps, channels, -1).astype(jnp.float32)

    def matrices(axis: int, full: int) -> Array:
        n_low, n_middle, n_full = (
            jnp.asarray(size)[:, axis, None] for size in (low, scaled, images.sizes)
        )
        length, middle = maps.shape[2 + axis], padded[axis]
        if upsample == "direct":
            return linear_weights(length, full, False, n_low, n_full, jnp)
        to_middle = linear_weights(length, middle, True, n_low, n_middle, jnp)
        to_full = linear_weights(middle, full, False, n_middle, n_full, jnp)
        return jnp.matmul(to_full, to_middle, precision=lax.Precision.HIGHEST)

    rows, columns = matrices(0, height), matrices(1, width)
    back = jnp.maximum(jnp.asarray(images.sizes)[:, 1, None] - 1 - jnp.arange(width), 0)
    flipped = jnp.take_along_axis(columns, back[..., None], 1)
    for copy, across in enumerate((columns, flipped)[:copies]):
        part = jnp.einsum(
            "nHh,nhwk,nWw->nkHW", rows, maps[:, copy], across, precision=lax.Precision.HIGHEST
        )
        total = total + (jnp.maximum(part, 0) if relu_each else part)
    return total


@functools.partial(jax.jit, static_argnames="reduce")
def reduced(total: Float32[Array, "n k H W"], images: Wanted, *, reduce: Reduce) -> Array:
    """Applies `reduce` to the sums of a batch."""
    heights, widths = jnp.asarray(images.sizes)[:, :, None, None].swapaxes(0, 1)
    row, column = jnp.arange(total.shape[2])[:, None], jnp.arange(total.shape[3])
    inside = ((row < heights) & (column < widths))[:, None]
    used = jnp.arange(total.shape[1]) < jnp.asarray(images.counts)[:, None]
    return reduce(jnp.where(used[..., None, None], total, -jnp.inf), inside)
