"""Losses that compare the maps of two views of an image."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def equivariance_l1(
    first: Float[Array, "b c h w"],
    second: Float[Array, "b c h w"],
    valid: Bool[Array, "b h w"] | None = None,
) -> Float[Array, ""]:
    """Computes SEAM's L_ER, the mean absolute difference of two views' maps (arXiv 2004.04581).

    Args:
      first: the maps of one view.
      second: the maps of the other view, aligned with the first.
      valid: pixels that count, by default all; if no pixel counts, the loss is 0.
    """
    difference = jnp.abs(first - second)
    if valid is None:
        return jnp.mean(difference)
    count = jnp.maximum(valid.sum() * first.shape[1], 1)
    return jnp.sum(jnp.where(valid[:, None], difference, 0)) / count
