"""Affinities of nearby pixels, from their features or from the boundaries between them.

Affinities are stored as [b, h, w, pairs] at the upper or left pixel of a pair, and are zero where
there is no pair. This is the layout that `wsss_jax.ops.random_walk` expects.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from wsss_jax.ops.path_index import RADIUS, Offset, pair_offsets, paths


def feature_affinity(
    features: Float[Array, "b h w c"], radius: int = RADIUS
) -> Float[Array, "b h w o"]:
    """Computes AffinityNet's ``exp(−mean over channels |f_i − f_j|)`` for all pairs `pair_offsets`.

    The value has no meaning where the second pixel would lie outside the map; see `pair_mask`.
    """
    b, h, w, c = features.shape
    reach = max(radius - 1, 0)
    wide = jnp.pad(features, ((0, 0), (0, reach), (reach, reach), (0, 0)))

    # One pair at a time, computed again for the gradient: the differences of all pairs would take
    # 34 times the memory of the features, and would be slower for it.
    @jax.checkpoint
    def one(carry: None, offset: Int[Array, "2"]) -> tuple[None, Array]:
        there = lax.dynamic_slice(wide, (0, offset[0], reach + offset[1], 0), (b, h, w, c))
        return carry, jnp.exp(-jnp.abs(features - there).mean(-1))

    offsets = np.asarray(pair_offsets(radius), np.int32).reshape(-1, 2)
    _, affinities = lax.scan(one, None, offsets)
    return jnp.moveaxis(affinities, 0, -1)


def partner_values(
    values: Shaped[Array, "b h w"], outside: int, radius: int = RADIUS
) -> Shaped[Array, "b h w o"]:
    """Returns the value of every pixel's partner in each of the pairs `pair_offsets`.

    Args:
      values: maps of any type.
      outside: the value of partners that lie outside the map.
      radius: the pixels of a pair are closer together than this.
    """
    reach = max(radius - 1, 0)
    margins = ((0, 0), (0, reach), (reach, reach))
    wide = jnp.pad(values, margins, constant_values=outside)

    def one(offset: Int[Array, "2"]) -> Array:
        return lax.dynamic_slice(wide, (0, offset[0], reach + offset[1]), values.shape)

    offsets = np.asarray(pair_offsets(radius), np.int32).reshape(-1, 2)
    return jnp.moveaxis(lax.map(one, offsets), 0, -1)


def pair_mask(
    shape: tuple[int, int], size: Int[Array, "b 2"], radius: int = RADIUS
) -> Bool[Array, "b h w o"]:
    """Marks the pairs `pair_offsets` that AffinityNet's program, in SEAM's copy, compares.

    No pair starts in the last `radius` − 1 rows, or in that many columns on either side, so that
    all pairs of a pixel end inside the map. On a map with a side below 2·radius + 1 the radius is
    ``(side − 1) // 2`` of the shorter side.

    Args:
      shape: the height and width of the map.
      size: the height and width of the top-left part of each map that counts.
      radius: the pixels of a pair are closer together than this.
    """
    height, width = size[:, 0, None, None], size[:, 1, None, None]
    shorter = jnp.minimum(height, width)
    shrunk = jnp.where(shorter < 2 * radius + 1, (shorter - 1) // 2, radius)
    reach = jnp.maximum(shrunk - 1, 0)
    y, x = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])
    starts = (y < height - reach) & (x >= reach) & (x < width - reach)
    squared = np.asarray([dy * dy + dx * dx for dy, dx in pair_offsets(radius)], np.int32)
    return starts[..., None] & (squared < (shrunk * shrunk)[..., None])


def boundary_affinity(
    boundary: Float[Array, "b h w"], radius: int = RADIUS
) -> tuple[Float[Array, "b h w o"], tuple[Offset, ...]]:
    """Computes IRNet's affinities: 1 − the strongest boundary on the path between two pixels.

    Args:
      boundary: boundary probabilities in 0…1. Outside the map they count as 1.
      radius: the pixels of a pair are closer together than this.

    Returns:
      The affinities, and the offset of each pair in their last axis.
    """
    _, h, w = boundary.shape
    reach = max(radius - 1, 0)
    wide = jnp.pad(boundary, ((0, 0), (0, reach), (reach, reach)), constant_values=1.0)

    def strongest(points: tuple[Offset, ...]) -> Array:
        values = (wide[:, y : y + h, reach + x : reach + x + w] for y, x in points)
        highest = next(values)
        for value in values:
            highest = jnp.maximum(highest, value)
        return highest

    pairs = paths(radius)
    affinities = jnp.stack([1 - strongest(pair.points) for pair in pairs], axis=-1)
    return affinities, tuple(pair.offset for pair in pairs)
