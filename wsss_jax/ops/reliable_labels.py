"""Labels of pixels from activation maps: those that can be relied on, the rest unknown.

Source: ECS-Net (ICCV 2021) for the idea; the rules are this program's, for the paper's is not
given in full. b images, c foreground classes.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

RULES = ("none", "threshold", "agree", "consistent")
IGNORE = 255


def reliable_labels(
    normal: Float[Array, "b c h w"],
    other: Float[Array, "b c h w"],
    labels: Float[Array, "b c"],
    valid: Bool[Array, "b h w"],
    rule: str,
    foreground: float,
    background: float,
) -> UInt8[Array, "b h w"]:
    """The class k + 1 of each pixel, 0 for background, 255 where it is unknown or padding.

    The rules, each with what the one before it demands:

    - ``none``: the strongest of all channels, background being one minus the strongest class;
      nothing but padding is unknown. It ignores both thresholds.
    - ``threshold``: the strongest class where it reaches `foreground`, background below
      `background`.
    - ``agree``: unless the other branch is as sure of another class.
    - ``consistent``: and background only where the other branch is not sure of any class, in images
      all of whose classes respond somewhere: a class that does not would count as background.

    Args:
      normal: maps in 0..1 that labels are made of, zero for classes that the image does not show.
      other: such maps of the other branch.
      labels: 0 or 1.
      valid: pixels that are no padding.
      rule: one of `RULES`.
      foreground: least response of a class.
      background: response below which there is no class.
    """
    best, winner = normal.max(1), normal.argmax(1).astype(jnp.uint8) + 1
    if rule == "none":
        found = jnp.where(best >= 0.5, winner, 0)
        return jnp.where(valid, found, IGNORE).astype(jnp.uint8)
    if rule not in RULES:
        raise ValueError(f"{rule!r} is none of {RULES}")
    sure, empty = best >= foreground, best < background
    other_sure = other.max(1) >= foreground
    if rule != "threshold":
        sure &= ~other_sure | (other.argmax(1) + 1 == winner)
    if rule == "consistent":
        responds = jnp.any(normal > 0, axis=(2, 3)) | (labels <= 0)
        empty &= ~other_sure & responds.all(1)[:, None, None]
    found = jnp.where(sure, winner, jnp.where(empty, 0, IGNORE))
    return jnp.where(valid, found, IGNORE).astype(jnp.uint8)
