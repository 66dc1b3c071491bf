"""Losses of segmentation masks with pixels of unknown class."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def masked_cross_entropy(
    logits: Float[Array, "b h w c1"], masks: UInt8[Array, "b h w"], ignore: int = 255
) -> Float[Array, ""]:
    """Mean softmax cross entropy over the pixels whose class is known; 0 when there is none.

    Args:
      logits: class scores.
      masks: class indices; `ignore` marks pixels without a class.
      ignore: the mark.
    """
    known = masks != ignore
    classes = jnp.where(known, masks, 0).astype(jnp.int32)
    log_probability = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probability, classes[..., None], axis=-1)[..., 0]
    return -jnp.sum(picked * known) / jnp.maximum(known.sum(), 1)


def balanced_cross_entropy(
    logits: Float[Array, "b h w c1"], masks: UInt8[Array, "b h w"], ignore: int = 255
) -> Float[Array, ""]:
    """Half the mean cross entropy of the background's pixels and half that of the foreground's.

    Args: as of `masked_cross_entropy`.
    """
    background = jnp.where(masks == 0, masks, ignore)
    foreground = jnp.where(masks == 0, ignore, masks)
    return (
        masked_cross_entropy(logits, background, ignore)
        + masked_cross_entropy(logits, foreground, ignore)
    ) / 2
