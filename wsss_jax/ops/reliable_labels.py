"""Pixel labels from activation maps: reliable pixels get a class, all others stay unknown.

Shapes use b images and c foreground classes. The idea is that of ECS-Net (ICCV 2021). The rules
are this program's own, because the paper does not state its rule in full.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

RULES = ("none", "threshold", "agree", "consistent")

IGNORE = 255
"""The label of pixels whose class is unknown, as in masks."""


def reliable_labels(
    normal: Float[Array, "b c h w"],
    other: Float[Array, "b c h w"],
    labels: Float[Array, "b c"],
    valid: Bool[Array, "b h w"],
    rule: str,
    foreground: float,
    background: float,
) -> UInt8[Array, "b h w"]:
    """Returns class k + 1 or background 0 for each pixel, and 255 where it is unknown or padding.

    The rules are, each stricter than the one before it:

    - ``none`` takes the strongest of all channels, where the background is one minus the strongest
      class. Only padding is unknown, and both thresholds are ignored.
    - ``threshold`` takes the strongest class where it reaches `foreground`, and the background
      where it is below `background`.
    - ``agree`` also drops the class where the other branch is sure of a different one.
    - ``consistent`` also requires for background that the other branch is not sure of any class,
      and that every class of the image responds somewhere. A class that does not respond would
      count as background.

    Args:
      normal: the maps in 0…1 that labels are made from; zero for classes that the image does not
        show.
      other: the same kind of maps from the other branch.
      labels: 0 or 1 for each class.
      valid: pixels that are not padding.
      rule: one of `RULES`.
      foreground: the smallest response of a class that counts.
      background: the response below which a pixel is background.

    Raises:
      ValueError: `rule` is none of `RULES`.
    """
    best, winner = normal.max(1), normal.argmax(1).astype(jnp.uint8) + 1
    if rule == "none":
        found = jnp.where(best >= 0.5, winner, 0)
        return jnp.where(valid, found, IGNORE).astype(jnp.uint8)
    if rule not in RULES:
        raise ValueError(f"expected a rule among {', '.join(RULES)}, found {rule!r}")
    sure, empty = best >= foreground, best < background
    other_sure = other.max(1) >= foreground
    if rule != "threshold":
        sure &= ~other_sure | (other.argmax(1) + 1 == winner)
    if rule == "consistent":
        responds = jnp.any(normal > 0, axis=(2, 3)) | (labels <= 0)
        empty &= ~other_sure & responds.all(1)[:, None, None]
    found = jnp.where(sure, winner, jnp.where(empty, 0, IGNORE))
    return jnp.where(valid, found, IGNORE).astype(jnp.uint8)
