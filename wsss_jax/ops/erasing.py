"""Erasing the part of an image that a network looks at, and what to put in its place.

Source: ECS-Net (ICCV 2021) for what is erased; the fills are this program's.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from wsss_jax.ops.resize import resize_planes

FILLS = ("blur", "mean", "noise")
_TINY = 1e-6


def valid_at_maps(valid: Bool[Array, "b h w"], size: tuple[int, int]) -> Bool[Array, "b p q"]:
    """Pixels of maps of `size` that lie on the image, wherever in the batch's frame that is.

    A training crop that is larger than its image has it at a random place, so the top-left
    rectangles that networks take at inference do not describe it.
    """
    weights = valid[:, None].astype(jnp.float32)
    return resize_planes(weights, size, align_corners=True)[:, 0] >= 0.5


def hot_region(
    normal: Float[Array, "b c p q"], valid: Bool[Array, "b h w"], threshold: float
) -> Bool[Array, "b h w"]:
    """Pixels of the image where any class responds strongly; the edge is hard.

    Args:
      normal: maps in 0..1, zero for classes that the image does not show; the strongest of them is
        enlarged (corners aligned) before the threshold, so the edge is that of the image's pixels.
      valid: pixels that are no padding; the others are never part of it.
      threshold: least response; above 1 there is no such pixel.
    """
    strongest = normal.max(1, keepdims=True)
    size = (valid.shape[1], valid.shape[2])
    return (resize_planes(strongest, size, align_corners=True)[:, 0] >= threshold) & valid


def gaussian_blur(
    images: Float[Array, "b h w c"], valid: Bool[Array, "b h w"], sigma: float
) -> Float[Array, "b h w c"]:
    """Each pixel becomes the Gaussian mean of the valid ones; zero where padded.

    Dividing by the blurred mask leaves padding out, so colors do not fade toward the edges. The
    blur is separable, a depthwise convolution along either axis, written as a product with a banded
    matrix: with dozens of taps that is several times faster on a CPU.

    Args:
      images: colors.
      valid: pixels that count.
      sigma: standard deviation in pixels.
    """
    mask = valid[..., None].astype(images.dtype)
    weighted = jnp.concatenate([images * mask, mask], axis=-1)
    highest = jax.lax.Precision.HIGHEST
    rows, columns = (_gaussian_matrix(n, sigma) for n in images.shape[1:3])
    weighted = jnp.einsum("oh,bhwc->bowc", rows, weighted, precision=highest)
    weighted = jnp.einsum("ow,bhwc->bhoc", columns, weighted, precision=highest)
    return weighted[..., :-1] / jnp.maximum(weighted[..., -1:], _TINY) * mask


def _gaussian_matrix(length: int, sigma: float) -> np.ndarray:
    position = np.arange(length)
    distance = (position[:, None] - position) / sigma
    matrix = np.exp(-(distance**2) / 2)
    return (matrix / matrix.sum(1, keepdims=True).max()).astype(np.float32)


def fill_colors(
    images: Float[Array, "b h w 3"],
    valid: Bool[Array, "b h w"],
    kind: str,
    sigma: float,
    keys: Key[Array, " b"],
) -> Float[Array, "b h w 3"]:
    """What erased pixels show instead; zero where padded, whatever the padding holds.

    Args:
      images: normalized.
      valid: pixels that are no padding.
      kind: ``blur``, of `sigma` pixels; ``mean``, the image's mean color; ``noise``, normal around
        that with the deviation of the image, independent at every pixel.
      sigma: see `kind`.
      keys: of the noise, one per image, so that the result does not depend on the image's place in
        the batch.
    """
    mask = valid[..., None].astype(images.dtype)
    if kind == "blur":
        return gaussian_blur(images, valid, sigma)
    count = jnp.maximum(mask.sum((1, 2), keepdims=True), 1)
    mean = (images * mask).sum((1, 2), keepdims=True) / count
    if kind == "mean":
        return mean * mask
    if kind != "noise":
        raise ValueError(f"{kind!r} is none of {FILLS}")
    variance = (jnp.square(images - mean) * mask).sum((1, 2), keepdims=True) / count
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
    return (mean + jnp.sqrt(variance) * noise) * mask
