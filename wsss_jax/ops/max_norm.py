"""Normalisations of activation maps to 0…1, per image and class.

Maps have their channels first here and in the losses: what is computed over the pixels of a class
then runs along memory, which on a CPU is several times faster than 21 channels side by side.

All leave a class without positive response at zero: no division by almost nothing.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

EPSILON = 1e-5  # the constant of the SSENet and SEAM programs


def max_norm(
    cam: Float[Array, "b c h w"],
    valid: Bool[Array, "b h w"] | None = None,
) -> Float[Array, "b c h w"]:
    """``relu(relu(cam) − ε) / (max relu(cam) + ε)``; the maximum is over valid pixels.

    SSENet's n(c) (arXiv 1909.03714) and the input of SEAM's pixel correlation. Invalid pixels give
    zero.
    """
    cam = jax.nn.relu(cam)
    if valid is not None:
        cam = jnp.where(valid[:, None], cam, 0)
    return jax.nn.relu(cam - EPSILON) / (cam.max((2, 3), keepdims=True) + EPSILON)


def min_max_norm(
    cam: Float[Array, "b c h w"],
    valid: Bool[Array, "b h w"] | None = None,
) -> Float[Array, "b c h w"]:
    """``relu(p − min p − ε) / (max p − min p + ε)`` with p = relu(cam), over valid pixels.

    SEAM's M(p) (arXiv 2004.04581). Invalid pixels give zero.
    """
    cam = jax.nn.relu(cam)
    low, high = cam, cam
    if valid is not None:
        low = jnp.where(valid[:, None], cam, jnp.inf)
        high = cam = jnp.where(valid[:, None], cam, 0)
    minimum = low.min((2, 3), keepdims=True)
    if valid is not None:  # an image that is nothing but padding
        minimum = jnp.where(jnp.isfinite(minimum), minimum, 0)
    maximum = high.max((2, 3), keepdims=True)
    return jax.nn.relu(cam - minimum - EPSILON) / (maximum - minimum + EPSILON)


def with_background(foreground: Float[Array, "b c h w"]) -> Float[Array, "b c1 h w"]:
    """Puts the channel ``1 − max foreground`` before normalised foreground maps."""
    return jnp.concatenate([1 - foreground.max(1, keepdims=True), foreground], axis=1)


def winner_only(maps: Float[Array, "b c1 h w"]) -> Float[Array, "b c1 h w"]:
    """Zeroes the foreground channels that are below the pixel's foreground maximum.

    Channel 0, the background, stays; so do several winners that are equal.
    """
    foreground = maps[:, 1:]
    best = foreground.max(1, keepdims=True)
    return jnp.concatenate([maps[:, :1], jnp.where(foreground < best, 0, foreground)], axis=1)
