"""Losses of image-level labels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def multilabel_soft_margin(
    logits: Float[Array, "b c"], labels: Float[Array, "b c"]
) -> Float[Array, ""]:
    """``mean −[y·log σ(z) + (1 − y)·log σ(−z)]`` over classes and batch.

    Args:
      logits: class scores z.
      labels: 0 or 1.
    """
    return -jnp.mean(
        labels * jax.nn.log_sigmoid(logits) + (1 - labels) * jax.nn.log_sigmoid(-logits)
    )
