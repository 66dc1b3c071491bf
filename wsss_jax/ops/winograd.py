"""Wide 3×3 convolutions on CPUs with 2.25 times fewer multiplications, forward and backward.

A tile of 2×2 output pixels sees 4×4 input pixels. Winograd's algorithm F(2×2, 3×3) transforms both
the 4×4 pixels and the kernel, multiplies them position by position, and transforms the 4×4 results
into the 2×2 pixels: 16 multiplications instead of 36. For all tiles and channels, these are 16
products of matrices. They are computed in a loop over the four rows of positions, so that only a
quarter of the transformed pixels is in memory at a time. The transforms only add and halve, so
results differ from those of a direct convolution by rounding (relative 1e-6). Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016.

A dilated convolution is a convolution of each of dilation² interleaved images, whose tiles are
transformed together.

In shapes, c are input and d output channels.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from wsss_jax.ops.xla_conv import Padding

CHANNELS = 256
"""The fewest channels, of input and output, with which products save more than transforms take.

With 256, a layer is 1.3 to 1.6 times as fast, and with 128 no faster (two cores of an AMD EPYC).
"""

PIXELS = 512
"""The fewest output pixels with which products save more than the transform of the kernel takes.

With 400, a layer is as fast as a direct convolution, and with 784 it is 1.3 times as fast.
"""


def is_worthwhile(
    kernel_shape: tuple[int, ...], out_shape: tuple[Any, ...], stride: int, dtype: object
) -> bool:
    """Returns whether the algorithm applies to a convolution and is faster than a direct one.

    Args:
      kernel_shape: the shape [k, l, c, d] of the kernel.
      out_shape: the shape [b, h, w, d] of the result, of which an exported network for images of
        any size has only the names. It gets a direct convolution.
      stride: the stride of the convolution.
      dtype: the type of the features. Half precision has too few digits for sums of pixels.
    """
    applies = kernel_shape[:2] == (3, 3) and stride == 1 and dtype == jnp.float32
    if not applies or not all(isinstance(side, int) for side in out_shape):
        return False
    return min(kernel_shape[2:]) >= CHANNELS and math.prod(out_shape[:3]) >= PIXELS


def winograd_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], dilation: int, padding: Padding
) -> Float[Array, "b p q d"]:
    """Convolves features with a 3×3 kernel at stride 1.

    Args:
      x: the features.
      kernel: the kernel.
      dilation: the distance between the taps.
      padding: the zeros to add, ((top, bottom), (left, right)).
    """
    return _convolved(x, kernel, dilation, padding, 0)


def winograd_input_gradient(
    kernel: Float[Array, "3 3 c d"], g: Float[Array, "b p q d"], dilation: int, padding: Padding
) -> Float[Array, "b h w c"]:
    """Returns the gradient of the features from that of the result, `g`; see `winograd_conv`.

    It is a convolution with the kernel turned by 180° whose channels are swapped.
    """
    (top, bottom), (left, right) = padding
    reach = 2 * dilation
    turned = ((reach - top, reach - bottom), (reach - left, reach - right))
    return _convolved(g, kernel[::-1, ::-1], dilation, turned, 1)


def winograd_kernel_gradient(
    x: Float[Array, "b h w c"], g: Float[Array, "b p q d"], dilation: int, padding: Padding
) -> Float[Array, "3 3 c d"]:
    """Returns the gradient of the kernel from that of the result, `g`; see `winograd_conv`."""
    tiles = _Tiles(x.shape, dilation, padding)

    def row(seen: tuple[Array, Array]) -> Array:
        pixels, gradients = tiles.input_positions(seen[0]), tiles.output_positions(seen[1])
        return _kernel_taps(lax.dot_general(pixels, gradients, (((1,), (1,)), ((0,), (0,)))))

    return _kernel_taps(lax.map(row, (tiles.input_rows(x), tiles.output_rows(g))))


def _convolved(x: Array, kernel: Array, dilation: int, padding: Padding, shared: int) -> Array:
    """Convolves pixels with a kernel, whose channels of the axis `shared`, 0 or 1, they have."""
    tiles = _Tiles(x.shape, dilation, padding)

    def row(seen: tuple[Array, Array]) -> Array:
        pixels, taps = tiles.input_positions(seen[0]), _kernel_tile(seen[1])
        product = lax.dot_general(pixels, taps, (((2,), (shared + 1,)), ((0,), (0,))))
        return _output_tile(product)

    return tiles.pixels(_output_tile(lax.map(row, (tiles.input_rows(x), _kernel_tile(kernel)))))


class _Tiles:
    """The tiles of a convolution.

    Attributes:
      counts: the numbers of images, of rows of tiles, of offsets of rows, of columns of tiles,
        and of offsets of columns. There are as many offsets as the dilation.
    """

    def __init__(self, x_shape: tuple[int, ...], dilation: int, padding: Padding):
        self._padding = padding
        sides = zip(x_shape[1:3], padding, strict=True)
        self._out = tuple(size + sum(pad) - 2 * dilation for size, pad in sides)
        rows, columns = (-(-size // (2 * dilation)) for size in self._out)
        self.counts = (x_shape[0], rows, dilation, columns, dilation)

    def input_rows(self, x: Float[Array, "b h w c"]) -> Float[Array, "4 b rows _ side _ c"]:
        """Transforms the columns of the 4×4 pixels that the tiles see."""
        split = self._split(x, [low for low, _ in self._padding], 2)
        last = 2 * self.counts[1] - 1
        return _input_tile([split[:, i : i + last : 2] for i in range(4)])

    def input_positions(self, row: Float[Array, "b rows _ side _ c"]) -> Float[Array, "4 tiles c"]:
        """Transforms one of the rows from `input_rows`."""
        last = 2 * self.counts[3] - 1
        seen = _input_tile([row[:, :, :, i : i + last : 2] for i in range(4)])
        return seen.reshape(4, -1, row.shape[-1])

    def output_rows(self, g: Float[Array, "b p q d"]) -> Float[Array, "4 b rows _ side _ d"]:
        """Transforms the columns of the gradient of the 2×2 pixels of the tiles."""
        split = self._split(g, [0, 0], 0)
        return _spread([split[:, i::2] for i in range(2)])

    def output_positions(self, row: Float[Array, "b rows _ side _ d"]) -> Float[Array, "4 tiles d"]:
        """Transforms one of the rows from `output_rows`."""
        return _spread([row[:, :, :, i::2] for i in range(2)]).reshape(4, -1, row.shape[-1])

    def pixels(self, parts: Float[Array, "2 2 tiles d"]) -> Float[Array, "b p q d"]:
        """Puts the 2×2 pixels of all tiles together."""
        batch, rows, dilation, columns, _ = self.counts
        parts = parts.reshape(2, 2, *self.counts, parts.shape[-1])
        shape = (batch, 2 * rows * dilation, 2 * columns * dilation, parts.shape[-1])
        pixels = parts.transpose(2, 3, 0, 4, 5, 1, 6, 7).reshape(shape)
        return pixels[:, : self._out[0], : self._out[1]]

    def _split(self, x: Array, low: Sequence[int], more: int) -> Array:
        """Pads an array to all tiles, and splits its sides into pixels and offsets.

        `more` pixels of each offset are added, which the last tiles see.
        """
        _, rows, dilation, columns, _ = self.counts
        lengths = [2 * count + more for count in (rows, columns)]
        high = [
            length * dilation - size - before
            for length, size, before in zip(lengths, x.shape[1:3], low, strict=True)
        ]
        config = [(0, 0, 0), (low[0], high[0], 0), (low[1], high[1], 0), (0, 0, 0)]
        padded = lax.pad(x, jnp.zeros((), x.dtype), config)
        return padded.reshape(len(x), lengths[0], dilation, lengths[1], dilation, x.shape[3])


def _input_tile(d: Sequence[Array]) -> Array:
    return jnp.stack([d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]])


def _kernel_tile(k: Array) -> Array:
    outer, middle = 0.5 * (k[0] + k[2]), 0.5 * k[1]
    return jnp.stack([k[0], outer + middle, outer - middle, k[2]])


def _kernel_taps(u: Array) -> Array:
    """The transpose of `_kernel_tile`."""
    middle = 0.5 * (u[1] + u[2])
    return jnp.stack([u[0] + middle, 0.5 * (u[1] - u[2]), middle + u[3]])


def _output_tile(m: Array) -> Array:
    return jnp.stack([m[0] + m[1] + m[2], m[1] - m[2] - m[3]])


def _spread(g: Sequence[Array]) -> Array:
    """The transpose of `_output_tile`."""
    return jnp.stack([g[0], g[0] + g[1], g[0] - g[1], -g[1]])
