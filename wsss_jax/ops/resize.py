"""Bilinear resizing in both conventions of the papers, without antialiasing.

The sampling grid follows from the two sizes and not from a scale factor. Corner-aligned resizing
maps the first and last pixels onto each other. The other convention (half-pixel) treats pixels as
areas. `jax.image.resize` has no corner-aligned mode, and it blurs when it makes images smaller.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from wsss_jax.host.interpolation import interpolation_matrix, linear_weights


def _valid_matrix(
    in_length: int,
    out_length: int,
    align_corners: bool,
    in_size: Int[Array, " b"],
    out_size: Int[Array, " b"],
) -> Float[Array, "b rows columns"]:
    """Returns a matrix for each signal, of which the leading `in_size` samples are valid.

    The valid samples are resized to the length `out_size`; rows from there on are zero.
    """
    n_in, n_out = in_size[:, None], out_size[:, None]
    matrix = linear_weights(in_length, out_length, align_corners, n_in, n_out, jnp)
    return jnp.where((jnp.arange(out_length) < n_out)[..., None], matrix, 0)


def _multiply(matrix: np.ndarray, x: Array, axis: int) -> Array:
    """Applies `matrix` along axis 1 or 2, as two gathers where that is exact and faster."""
    product = functools.partial(_product, matrix, axis)
    used = matrix != 0
    if used.sum(1).max() > 2:
        return product(x)
    # The program's platform decides, which need not be that of this machine.
    return lax.platform_dependent(
        x, cpu=functools.partial(_two_gathers, matrix, axis), default=product
    )


def _two_gathers(matrix: np.ndarray, axis: int, x: Array) -> Array:
    used = matrix != 0
    row = np.arange(len(matrix))
    low, high = used.argmax(1), matrix.shape[1] - 1 - used[:, ::-1].argmax(1)
    shape = [-1 if a == axis else 1 for a in range(x.ndim)]
    low_weight = matrix[row, low].reshape(shape)
    high_weight = np.where(high > low, matrix[row, high], 0).reshape(shape)
    return jnp.take(x, low, axis) * low_weight + jnp.take(x, high, axis) * high_weight


def _product(matrix: np.ndarray, axis: int, x: Array) -> Array:
    highest = lax.Precision.HIGHEST
    if axis == 2:
        return jnp.einsum("ow,bhwc->bhoc", matrix, x, precision=highest)
    b, h, w, c = x.shape
    # One product per image leaves the long rows in place; a joint one would move them all.
    matrices = jnp.broadcast_to(matrix, (b, *matrix.shape))
    y = jnp.einsum("boh,bhn->bon", matrices, x.reshape(b, h, w * c), precision=highest)
    return y.reshape(b, -1, w, c)


def _separable(rows: np.ndarray, columns: np.ndarray, x: Array) -> Array:
    """Applies both matrices, and their transposes for the derivative.

    On a CPU, gathering is 3 to 40 times faster than a product with a matrix that has two numbers
    per row, but the scatter that automatic differentiation would make of it is slow.
    """

    def resized(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
        return _multiply(columns, _multiply(rows, x, 1), 2)

    @jax.custom_vjp
    def linear(x: Array) -> Array:
        return resized(x, rows, columns)

    linear.defvjp(lambda x: (linear(x), None), lambda _, y: (resized(y, rows.T, columns.T),))
    return linear(x)


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Returns (height, width) times a scale factor, rounded down, but at least one pixel."""
    return max(int(size[0] * factor), 1), max(int(size[1] * factor), 1)


def resize_bilinear(
    x: Float[Array, "b h w c"],
    size: tuple[int, int],
    *,
    align_corners: bool,
    in_size: Int[Array, "b 2"] | None = None,
    out_size: Int[Array, "b 2"] | None = None,
) -> Float[Array, "b oh ow c"]:
    """Resizes maps to `size` = (height, width).

    Args:
      x: the maps.
      size: the static size of the result.
      align_corners: the convention, which the module explains.
      in_size: (height, width) of the valid top-left part of each map; it needs `out_size` too.
      out_size: (height, width) that the valid part is resized to, with zeros beyond. The valid part
        of the result is what the unpadded map would give.

    Returns:
      Maps of the dtype of `x`; the arithmetic is in float32.

    Raises:
      ValueError: only one of `in_size` and `out_size` is given.
    """
    if (in_size is None) != (out_size is None):
        raise ValueError("expected both in_size and out_size or neither, found one of them")
    if x.shape[1:3] == tuple(size) and in_size is None:
        return x
    result = x.astype(jnp.float32)
    if in_size is None or out_size is None:
        rows = interpolation_matrix(x.shape[1], size[0], align_corners)
        columns = interpolation_matrix(x.shape[2], size[1], align_corners)
        return _separable(rows, columns, result).astype(x.dtype)
    rows, columns = (
        _valid_matrix(
            x.shape[axis + 1], size[axis], align_corners, in_size[:, axis], out_size[:, axis]
        )
        for axis in (0, 1)
    )
    highest = lax.Precision.HIGHEST
    result = jnp.einsum("bih,bhwc->biwc", rows, result, precision=highest)
    result = jnp.einsum("bjw,biwc->bijc", columns, result, precision=highest)
    return result.astype(x.dtype)


def resize_planes(
    x: Float[Array, "b c h w"], size: tuple[int, int], *, align_corners: bool
) -> Float[Array, "b c oh ow"]:
    """Resizes maps with the channels first as `resize_bilinear` does, with two matrix products."""
    if x.shape[2:] == tuple(size):
        return x
    rows = interpolation_matrix(x.shape[2], size[0], align_corners)
    columns = interpolation_matrix(x.shape[3], size[1], align_corners)

    def along_rows(x: Array) -> Array:
        return _last_axis(x.swapaxes(2, 3), rows).swapaxes(2, 3)

    # Rows have to be moved in memory, so they are resized while the maps are small.
    if size[0] > x.shape[2]:
        return _last_axis(along_rows(x), columns)
    return along_rows(_last_axis(x, columns))


def resized_mean(
    x: Float[Array, "b c h w"], size: tuple[int, int], *, align_corners: bool
) -> Float[Array, "b c"]:
    """Returns the mean over the pixels of ``resize_planes(x, size)`` without computing them."""
    rows, columns = (
        interpolation_matrix(n, m, align_corners).mean(0, dtype=np.float32)
        for n, m in zip(x.shape[2:], size, strict=True)
    )
    return jnp.einsum("bchw,h,w->bc", x, rows, columns, precision=lax.Precision.HIGHEST)


def _last_axis(x: Array, matrix: np.ndarray) -> Array:
    flat = x.reshape(-1, x.shape[-1])
    product = jnp.matmul(flat, matrix.T, precision=lax.Precision.HIGHEST)
    return product.reshape(*x.shape[:-1], len(matrix))


def valid_size(valid: Array) -> Int[Array, "b 2"]:
    """Returns (height, width) of the top-left rectangle that a bool mask [b, h, w] marks."""
    return jnp.stack([valid.any(2).sum(1), valid.any(1).sum(1)], axis=-1).astype(jnp.int32)
