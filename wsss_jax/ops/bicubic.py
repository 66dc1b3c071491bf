"""Bicubic resizing of images as Pillow does it, for programs that run without Pillow."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float32, Int, Int32, UInt8

_A = -0.5  # Pillow's; OpenCV has −0.75
_BITS = 22  # of Pillow's weights after the point
_LOW_BITS = 11
_SUM_BITS = 26  # for the sums of weights, which are at most 31


def resize_like_pillow(
    image: UInt8[Array, "h w c"],
    size: Int[Array, "2"],
    canvas: tuple[int, int],
    new_size: Int[Array, "2"],
) -> UInt8[Array, "H W c"]:
    """Resizes the valid part of an image, with antialiasing, first along the rows.

    This is `wsss_jax.data.augment.resize_image` for sizes that are known only when the program
    runs. Sums are those of whole numbers, as in Pillow, so they do not depend on their order. Only
    the weights are computed in float32 and not in float64, so that a value very near to halfway
    between two gray levels can be rounded to the other one.

    Args:
      image: the image; what is beyond `size` has no influence.
      size: the height and width of its valid top-left part.
      canvas: the height and width of the result.
      new_size: the height and width that the valid part is resized to; zeros are beyond.
    """
    rows = _weights(image.shape[0], canvas[0], size[0], new_size[0])
    columns = _weights(image.shape[1], canvas[1], size[1], new_size[1])
    across = _apply(columns, image.swapaxes(0, 1)).swapaxes(0, 1)
    return _apply(rows, across)


def _weights(
    in_length: int, out_length: int, size: Int[Array, ""], new_size: Int[Array, ""]
) -> Int32[Array, "rows columns"]:
    """Returns Pillow's weights of the first `size` samples for the first `new_size` results."""
    row, column = jnp.arange(out_length)[:, None], jnp.arange(in_length)
    # Twice the distance of the centers is (2c + 1) − (2r + 1)·old / new samples. When an image
    # shrinks, the kernel becomes wider. The smallest whole numbers keep the quotient exact where
    # gray levels are halfway between two others, even if a compiler multiplies by the reciprocal.
    common = jnp.maximum(jnp.gcd(size, new_size), 1)
    old, new = size // common, new_size // common
    numerator = (2 * column + 1) * new - (2 * row + 1) * old
    x = jnp.abs(numerator / (2 * jnp.maximum(old, new)).astype(jnp.float32))
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    kernel = jnp.where(x < 1, near, jnp.where(x < 2, far, 0))
    kernel = jnp.where((column < size) & (row < new_size), kernel, 0)
    total = _whole(kernel, _SUM_BITS).sum(1, keepdims=True) / jnp.float32(2**_SUM_BITS)
    return _whole(kernel / jnp.where(total == 0, 1, total), _BITS)


def _whole(values: Float32[Array, "r c"], bits: int) -> Int32[Array, "r c"]:
    return jnp.round(values * 2**bits).astype(jnp.int32)


def _apply(weights: Int32[Array, "n m"], image: UInt8[Array, "m k c"]) -> UInt8[Array, "n k c"]:
    """Adds up whole numbers along the first axis, and rounds to gray levels.

    Products of float32 numbers are exact as long as sums have at most 24 bits. So the weights are
    divided into their upper and their lower bits.
    """
    high = jnp.round(weights / 2**_LOW_BITS).astype(jnp.int32)
    parts = jnp.stack([high, weights - high * 2**_LOW_BITS]).astype(jnp.float32)
    sums = jnp.einsum(
        "pnm,mkc->pnkc", parts, image.astype(jnp.float32), precision=lax.Precision.HIGHEST
    ).astype(jnp.int32)
    value = (sums[0] * 2**_LOW_BITS + sums[1] + 2 ** (_BITS - 1)) >> _BITS
    return jnp.clip(value, 0, 255).astype(jnp.uint8)
