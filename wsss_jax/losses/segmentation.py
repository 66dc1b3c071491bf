"""Losses for segmentation with masks that leave some pixels without a class."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def masked_cross_entropy(
    logits: Float[Array, "b h w c1"], masks: UInt8[Array, "b h w"], ignore: int = 255
) -> Float[Array, ""]:
    """Averages the softmax cross entropy over the pixels with a known class; 0 if there are none.

    Args:
      logits: the class scores.
      masks: class indices, or `ignore` where a pixel has no class.
      ignore: the value that marks pixels without a class.
    """
    known = masks != ignore
    classes = jnp.where(known, masks, 0).astype(jnp.int32)
    log_probability = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probability, classes[..., None], axis=-1)[..., 0]
    return -jnp.sum(picked * known) / jnp.maximum(known.sum(), 1)


def balanced_cross_entropy(
    logits: Float[Array, "b h w c1"], masks: UInt8[Array, "b h w"], ignore: int = 255
) -> Float[Array, ""]:
    """Averages the mean cross entropy of background pixels and that of foreground pixels.

    Args:
      logits: the class scores.
      masks: class indices, or `ignore` where a pixel has no class.
      ignore: the value that marks pixels without a class.
    """
    background = jnp.where(masks == 0, masks, ignore)
    foreground = jnp.where(masks == 0, ignore, masks)
    return (
        masked_cross_entropy(logits, background, ignore)
        + masked_cross_entropy(logits, foreground, ignore)
    ) / 2
