"""SEAM's pixel correlation module, which revises activation maps by the similarity of pixels.

Source: arXiv 2004.04581, section 3.3, and the behavior of the published program.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.ops.max_norm import EPSILON, max_norm, winner_only, with_background

DENSE_PIXELS = 4096
"""Up to this many pixels, all pairs are held at once: 64 MiB per image, the fastest gradient."""
BLOCK_PIXELS = 512
"""Columns of the pair matrix held at once beyond `DENSE_PIXELS`: 32 MiB for a 1000 × 1000 input."""


def pixel_correlation_input(
    cam: Float[Array, "b h w c1"], valid: Bool[Array, "b h w"] | None = None
) -> Float[Array, "b h w c1"]:
    """Returns the scores that the module spreads: background, and the winners of the foreground.

    Args:
      cam: raw maps. The foreground is divided by its maximum, and channel 0 (the background) is
        replaced by one minus the foreground's maximum.
      valid: pixels that belong to the image; only they count for the maxima.

    Returns:
      Maps of the same shape, through which no gradient flows.
    """
    planes = jnp.moveaxis(jax.lax.stop_gradient(cam)[..., 1:], -1, 1)
    return jnp.moveaxis(winner_only(with_background(max_norm(planes, valid))), 1, -1)


def _unit(features: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    square = jnp.sum(jnp.square(features), -1, keepdims=True)
    # The derivative of the norm is undefined at zero, which is the value of padded pixels.
    norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return features / (norm + EPSILON)


def _revise(
    block: Float[Array, "b m d"], features: Float[Array, "b n d"], scores: Float[Array, "b n k"]
) -> Float[Array, "b m k"]:
    """Returns weighted means of `scores` over all n pixels, for the m pixels of `block`."""
    highest = jax.lax.Precision.HIGHEST
    affinity = jax.nn.relu(jnp.einsum("bmd,bnd->bmn", block, features, precision=highest))
    summed = jnp.einsum("bmn,bnk->bmk", affinity, scores, precision=highest)
    return summed / (affinity.sum(-1, keepdims=True) + EPSILON)


def pixel_correlation(
    features: Float[Array, "b h w d"],
    cam: Float[Array, "b h w k"],
    valid: Bool[Array, "b h w"] | None = None,
    block: int | None = None,
) -> Float[Array, "b h w k"]:
    """Replaces each pixel's scores by the mean over all pixels, weighted by their similarity.

    With f = features / (‖features‖ + ε) and A = relu(f·fᵀ), output pixel j is
    ``Σ_i A[i, j]·cam[i] / (Σ_i A[i, j] + ε)``.

    Args:
      features: the features whose similarity counts.
      cam: the maps to revise.
      valid: pixels that take part; the others get zero.
      block: how many rows of A are in memory at once. None means all of them up to `DENSE_PIXELS`
        pixels, and `BLOCK_PIXELS` beyond. Neither the result nor its gradient depends on it; the
        gradient computes the rows again.

    Returns:
      The revised maps in float32.
    """
    batch, height, width, _ = cam.shape
    pixels = height * width
    flat = features.astype(jnp.float32).reshape(batch, pixels, -1)
    scores = cam.astype(jnp.float32).reshape(batch, pixels, -1)
    if valid is not None:  # a zero feature is similar to nothing, itself included
        flat = jnp.where(valid.reshape(batch, pixels, 1), flat, 0)
    flat = _unit(flat)
    # In a program for images of any size, the number of pixels is a symbol.
    known = isinstance(pixels, int)
    if block is None:
        block = pixels if known and pixels <= DENSE_PIXELS else BLOCK_PIXELS
    if known and block >= pixels:
        revised = _revise(flat, flat, scores)
    else:
        blocks = -(-pixels // block)
        padded = jnp.pad(flat, ((0, 0), (0, blocks * block - pixels), (0, 0)))
        parts = padded.reshape(batch, blocks, block, -1).swapaxes(0, 1)
        revise = jax.checkpoint(functools.partial(_revise, features=flat, scores=scores))
        revised = jax.lax.map(revise, parts).swapaxes(0, 1)
        revised = revised.reshape(batch, blocks * block, -1)[:, :pixels]
    return revised.reshape(batch, height, width, -1)
