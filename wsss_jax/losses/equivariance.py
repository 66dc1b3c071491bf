"""Differences between maps of two views of a scene."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def equivariance_l1(
    first: Float[Array, "b c h w"],
    second: Float[Array, "b c h w"],
    valid: Bool[Array, "b h w"] | None = None,
) -> Float[Array, ""]:
    """Mean absolute difference of two maps of the same scene: SEAM's L_ER (arXiv 2004.04581).

    Args:
      first: one of them.
      second: the other.
      valid: pixels that count (default: all); without any the loss is 0.
    """
    difference = jnp.abs(first - second)
    if valid is None:
        return jnp.mean(difference)
    count = jnp.maximum(valid.sum() * first.shape[1], 1)
    return jnp.sum(jnp.where(valid[:, None], difference, 0)) / count
