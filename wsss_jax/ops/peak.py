"""Maxima with a gradient that is safe to compile.

The derivative of `jnp.max` looks for the entries that equal the maximum and divides by their
number. A compiler is free to compute the operand once for the maximum and once more for the
comparison, in another order; when rounding then differs, nothing is equal, and the gradient is 0/0.
Here the place of the maximum is found first and its value read from there.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.ops.max_norm import EPSILON


def peak(x: Float[Array, "b c n"], axis: int) -> Float[Array, "b _ _"]:
    """The maximum along an axis, which stays with length one; the first of equals has its gradient.

    Args:
      x: maps, their pixels in one axis.
      axis: 1 or 2.
    """
    place = x.argmax(axis, keepdims=True)
    along = jnp.arange(x.shape[axis]).reshape((-1, 1) if axis == 1 else (1, -1))
    return jnp.where(along == place, x, 0).sum(axis, keepdims=True)


def peak_norm(
    cam: Float[Array, "b c h w"],
    valid: Bool[Array, "b h w"] | None = None,
) -> Float[Array, "b c h w"]:
    """`wsss_jax.ops.max_norm.max_norm`, differentiated through `peak`."""
    cam = jax.nn.relu(cam)
    if valid is not None:
        cam = jnp.where(valid[:, None], cam, 0)
    maximum = peak(cam.reshape(*cam.shape[:2], -1), 2)[..., None]
    return jax.nn.relu(cam - EPSILON) / (maximum + EPSILON)


def with_background(foreground: Float[Array, "b c h w"]) -> Float[Array, "b c1 h w"]:
    """`wsss_jax.ops.max_norm.with_background`, differentiated through `peak`."""
    flat = foreground.reshape(*foreground.shape[:2], -1)
    strongest = peak(flat, 1).reshape(len(foreground), 1, *foreground.shape[2:])
    return jnp.concatenate([1 - strongest, foreground], axis=1)
