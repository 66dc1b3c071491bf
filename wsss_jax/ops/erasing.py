"""Erases the part of an image that a network responds to and fills it with something else.

ECS-Net (ICCV 2021) is the source of what is erased; the fills are this program's own.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from wsss_jax.ops.resize import resize_planes

FILLS = ("blur", "mean", "noise")
_TINY = 1e-6


def valid_at_maps(valid: Bool[Array, "b h w"], size: tuple[int, int]) -> Bool[Array, "b p q"]:
    """Marks the pixels of maps of `size` that lie on the image.

    A training crop that is larger than its image has the image at a random place, so the top-left
    rectangle that networks assume at inference does not describe it.
    """
    weights = valid[:, None].astype(jnp.float32)
    return resize_planes(weights, size, align_corners=True)[:, 0] >= 0.5


def hot_region(
    normal: Float[Array, "b c p q"], valid: Bool[Array, "b h w"], threshold: float
) -> Bool[Array, "b h w"]:
    """Marks the pixels of the image where any class responds strongly.

    Args:
      normal: maps in 0…1, which are zero for classes that the image does not show. The strongest
        of them is upsampled (corners aligned) before it is compared with the threshold, so the
        region has the resolution of the image.
      valid: pixels that are not padding; padding is never part of the region.
      threshold: the smallest response that counts; above 1 the region is empty.
    """
    strongest = normal.max(1, keepdims=True)
    size = (valid.shape[1], valid.shape[2])
    return (resize_planes(strongest, size, align_corners=True)[:, 0] >= threshold) & valid


def gaussian_blur(
    images: Float[Array, "b h w c"], valid: Bool[Array, "b h w"], sigma: float
) -> Float[Array, "b h w c"]:
    """Blurs images with a Gaussian over their valid pixels; padding becomes zero.

    Dividing by the blurred mask leaves the padding out, so colors do not fade toward the edges. The
    blur is separable. Along each axis it is written as a product with a banded matrix, which with
    dozens of taps is several times faster on a CPU than a depthwise convolution.

    Args:
      images: the colors.
      valid: pixels that count.
      sigma: the standard deviation in pixels.
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
    """Returns the colors that erased pixels get instead; padding is zero, whatever it held.

    Args:
      images: normalized images.
      valid: pixels that are not padding.
      kind: ``blur`` is a Gaussian blur of `sigma` pixels; ``mean`` is the image's mean color;
        ``noise`` is normal noise around that mean with the image's standard deviation, independent
        at every pixel.
      sigma: the standard deviation of ``blur`` in pixels.
      keys: the random keys of the noise, one per image, so that the result does not depend on the
        image's place in the batch.

    Raises:
      ValueError: `kind` is none of `FILLS`.
    """
    mask = valid[..., None].astype(images.dtype)
    if kind == "blur":
        return gaussian_blur(images, valid, sigma)
    count = jnp.maximum(mask.sum((1, 2), keepdims=True), 1)
    mean = (images * mask).sum((1, 2), keepdims=True) / count
    if kind == "mean":
        return mean * mask
    if kind != "noise":
        raise ValueError(f"expected a fill among {', '.join(FILLS)}, found {kind!r}")
    variance = (jnp.square(images - mean) * mask).sum((1, 2), keepdims=True) / count
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
    return (mean + jnp.sqrt(variance) * noise) * mask
