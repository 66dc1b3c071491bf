"""IRNet's losses on pairs of pixels: of the boundaries between them and of their displacements."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int32, UInt8

from wsss_jax.ops.path_index import Path, paths
from wsss_jax.ops.reliable_labels import IGNORE

RADIUS = 10
"""The published radius in pixels of the boundary map; pairs are closer than it."""

_EPSILON = 1e-5  # as in the published program
_LOOPS = 4
_SUMS = ("background", "foreground", "different", "far_background", "far_foreground")


def boundary_losses(
    boundary: Float[Array, "b h w"],
    displacement: Float[Array, "b h w 2"],
    labels: UInt8[Array, "b h w"],
    radius: int = RADIUS,
) -> dict[str, Float[Array, ""]]:
    """Averages IRNet's losses over the pairs of pixels whose two classes are known.

    The source is Ahn et al. (CVPR 2019). The affinity a of a pair is 1 − the strongest boundary on
    the path between its pixels. Pairs start at the pixels all of whose pairs end inside the map. On
    a map with a side below 2·radius + 1 the radius is ``(side − 1) // 2`` of the shorter side; this
    rule is not IRNet's but that of SEAM's AffinityNet.

    Args:
      boundary: boundary probabilities.
      displacement: (dy, dx) from each pixel to the center of its object, in pixels.
      labels: classes; 0 is background and 255 unknown.
      radius: the pixels of a pair are closer together than this.

    Returns:
      Five means, each 0 where there are no such pairs. ``background`` and ``foreground`` are −log a
      over pairs of one class, and ``different`` is −log(1 − a) over pairs of two classes.
      ``displacement_foreground`` is the distance between the difference of two displacements and
      the offset of their pixels, over pairs of one foreground class. ``displacement_background`` is
      the size of that difference over pairs of background.
    """
    b, h, w = labels.shape
    shorter = min(h, w)
    reach = ((shorter - 1) // 2 if shorter < 2 * radius + 1 else radius) - 1
    size = (h - max(reach, 0), w - 2 * max(reach, 0))

    def read(values: Array, at: Int[Array, "2"]) -> Array:
        start = (0, at[0], reach + at[1], *([0] * (values.ndim - 3)))
        return lax.dynamic_slice(values, start, (b, *size, *values.shape[3:]))

    # One pair at a time, computed again for the gradient, because a pixel has 152 pairs.
    @jax.checkpoint
    def add(sums: dict[str, Array], pair: tuple[Array, Array]) -> tuple[dict[str, Array], None]:
        points, offset = pair

        def higher(strongest: Array, point: Array) -> tuple[Array, None]:
            return jnp.maximum(strongest, read(boundary, point)), None

        strongest, _ = lax.scan(higher, read(boundary, points[0]), points[1:])
        origin = jnp.zeros_like(offset)
        here, there = read(labels, origin), read(labels, offset)
        known = (here != IGNORE) & (there != IGNORE)
        same = known & (here == there)
        kinds = {
            "background": same & (here == 0),
            "foreground": same & (here != 0),
            "different": known & (here != there),
        }
        together, apart = -jnp.log(1 - strongest + _EPSILON), -jnp.log(strongest + _EPSILON)
        way = read(displacement, origin) - read(displacement, offset)
        costs = {
            "background": (together, "background"),
            "foreground": (together, "foreground"),
            "different": (apart, "different"),
            "far_background": (jnp.abs(way).sum(-1), "background"),
            "far_foreground": (jnp.abs(way - offset).sum(-1), "foreground"),
        }
        added = {name: jnp.sum(jnp.where(kinds[k], cost, 0)) for name, (cost, k) in costs.items()}
        added |= {f"pairs_{k}": jnp.sum(where, dtype=jnp.float32) for k, where in kinds.items()}
        return {name: sums[name] + value for name, value in added.items()}, None

    counts = ("pairs_background", "pairs_foreground", "pairs_different")
    sums = {name: jnp.zeros(()) for name in (*_SUMS, *counts)}
    if reach > 0:
        for points, offsets in _loops(paths(reach + 1)):
            sums, _ = lax.scan(add, sums, (points, offsets))

    def mean(name: str, kind: str, components: int = 1) -> Array:
        return sums[name] / (components * sums[f"pairs_{kind}"] + _EPSILON)

    return {
        "background": mean("background", "background"),
        "foreground": mean("foreground", "foreground"),
        "different": mean("different", "different"),
        "displacement_background": mean("far_background", "background", 2),
        "displacement_foreground": mean("far_foreground", "foreground", 2),
    }


def _loops(
    pairs: tuple[Path, ...],
) -> list[tuple[Int32[np.ndarray, "n length 2"], Int32[np.ndarray, "n 2"]]]:
    """Groups the points and offsets of the pairs into a few parts, the shortest paths first.

    A loop needs paths of equal length, and an unrolled loop takes minutes to compile. So the last
    point of shorter paths is repeated, which changes no maximum. With a single part, half of all
    points would be repetitions.
    """
    size = -(-len(pairs) // _LOOPS)
    found = []
    for part in (pairs[start : start + size] for start in range(0, len(pairs), size)):
        longest = max(len(path.points) for path in part)
        points = [path.points + path.points[-1:] * (longest - len(path.points)) for path in part]
        offsets = [path.offset for path in part]
        found.append((np.asarray(points, np.int32), np.asarray(offsets, np.int32)))
    return found
