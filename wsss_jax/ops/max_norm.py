"""Normalizes activation maps to 0…1, per image and class.

Maps have their channels first here and in the losses. Reductions over the pixels of a class then
read memory in order, which on a CPU is several times faster than with 21 channels side by side.

Every function leaves a class without a positive response at zero, so nothing is divided by a
number close to zero.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

EPSILON = 1e-5  # the constant of the SSENet and SEAM programs


def brightest(maps: Float[Array, "b c h w"]) -> Float[Array, "b c 1 1"]:
    """Returns the maximum over the pixels; among equal pixels the first one gets the gradient.

    The derivative of `jnp.max` looks for the entries that equal the maximum and divides by their
    number. A compiler is free to compute the operand once for the maximum and again, in another
    order, for the comparison. If the two are rounded differently, no entry is equal and the
    gradient is 0/0. Here the position of the maximum is found first, and its value is read there.
    """
    flat = maps.reshape(*maps.shape[:2], -1)
    place = jax.lax.stop_gradient(flat).argmax(2, keepdims=True)
    found = jnp.where(jnp.arange(flat.shape[2]) == place, flat, 0).sum(2)
    return found[..., None, None]


def strongest(maps: Float[Array, "b c h w"]) -> Float[Array, "b 1 h w"]:
    """Returns the maximum over the classes, with a derivative as safe as that of `brightest`."""
    return functools.reduce(jnp.maximum, jnp.split(maps, maps.shape[1], 1))


def max_norm(
    cam: Float[Array, "b c h w"],
    valid: Bool[Array, "b h w"] | None = None,
) -> Float[Array, "b c h w"]:
    """Computes ``relu(relu(cam) − ε) / (max relu(cam) + ε)`` with the maximum over valid pixels.

    This is SSENet's n(c) (arXiv 1909.03714) and the input of SEAM's pixel correlation. Invalid
    pixels become zero.
    """
    cam = jax.nn.relu(cam)
    if valid is not None:
        cam = jnp.where(valid[:, None], cam, 0)
    return jax.nn.relu(cam - EPSILON) / (brightest(cam) + EPSILON)


def min_max_norm(
    cam: Float[Array, "b c h w"],
    valid: Bool[Array, "b h w"] | None = None,
) -> Float[Array, "b c h w"]:
    """Computes ``relu(p − min p − ε) / (max p − min p + ε)`` with p = relu(cam), over valid pixels.

    This is SEAM's M(p) (arXiv 2004.04581). Invalid pixels become zero.
    """
    cam = jax.nn.relu(cam)
    low, high = cam, cam
    if valid is not None:
        low = jnp.where(valid[:, None], cam, jnp.inf)
        high = cam = jnp.where(valid[:, None], cam, 0)
    minimum = -brightest(-low)
    if valid is not None:  # the minimum is infinite when an image is nothing but padding
        minimum = jnp.where(jnp.isfinite(minimum), minimum, 0)
    maximum = brightest(high)
    return jax.nn.relu(cam - minimum - EPSILON) / (maximum - minimum + EPSILON)


def with_background(foreground: Float[Array, "b c h w"]) -> Float[Array, "b c1 h w"]:
    """Prepends the background channel ``1 − max foreground`` to normalized foreground maps."""
    return jnp.concatenate([1 - strongest(foreground), foreground], axis=1)


def winner_only(maps: Float[Array, "b c1 h w"]) -> Float[Array, "b c1 h w"]:
    """Sets the foreground channels below the pixel's foreground maximum to zero.

    Channel 0, the background, stays as it is, and so do several winners that are exactly equal. As
    in SEAM's program, the comparison has no tolerance: when the normalized maps of two classes peak
    at the same pixel, they differ there by about 1e-6, and only the larger one may stay.
    """
    # There are two loops over the classes because a loop reads what is stored. Otherwise a compiler
    # may compute the maps once for the maximum and again for the comparison. If the two are rounded
    # differently, no class equals the maximum. XLA drops an optimization barrier before it fuses.
    planes = jnp.moveaxis(maps[:, 1:], 1, 0)
    parts = planes.reshape(_rounds(len(planes)), -1, *planes.shape[1:])
    best = _maximum(jax.lax.stop_gradient(parts))
    winners = jax.lax.map(lambda part: jnp.where(part < best, 0, part), parts)
    winners = winners.reshape(planes.shape)
    return jnp.concatenate([maps[:, :1], jnp.moveaxis(winners, 0, 1)], axis=1)


def _maximum(parts: Float[Array, "parts c b h w"]) -> Float[Array, "b h w"]:
    """Returns the maximum over the planes of all parts, which a loop reads one by one."""
    lowest = jnp.full_like(parts, -jnp.inf, shape=parts.shape[2:])
    best, _ = jax.lax.scan(lambda best, part: (jnp.maximum(best, part.max(0)), None), lowest, parts)
    return best


def _rounds(planes: int) -> int:
    """Returns into how many equal parts the planes are divided: the fewest, but not one.

    XLA unrolls a loop of one round. Each round is a program to start, which takes a GPU longer
    than the round itself.
    """
    return next((n for n in range(2, planes) if planes % n == 0), max(planes, 1))
