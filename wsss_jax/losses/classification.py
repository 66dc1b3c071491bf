"""Losses for classification with image-level labels."""

import optax
from jaxtyping import Array, Float


def multilabel_soft_margin(
    logits: Float[Array, "b c"], labels: Float[Array, "b c"]
) -> Float[Array, ""]:
    """Computes the mean of ``−[y·log σ(z) + (1 − y)·log σ(−z)]`` over classes and batch.

    Args:
      logits: the class scores z.
      labels: the labels y, 0 or 1.
    """
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean()
