"""What IRNet learns from: pairs of pixels, the boundaries between them and their displacements."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int32, UInt8

from wsss_jax.ops.path_index import Path, paths

RADIUS = 10
"""Published, in pixels of the boundary map; pairs are closer than it."""

_EPSILON = 1e-5  # of the published program
_IGNORE = 255
_LOOPS = 4
_SUMS = ("background", "foreground", "different", "far_background", "far_foreground")


def boundary_losses(
    boundary: Float[Array, "b h w"],
    displacement: Float[Array, "b h w 2"],
    labels: UInt8[Array, "b h w"],
    radius: int = RADIUS,
) -> dict[str, Float[Array, ""]]:
    """Means over the pairs of pixels whose two classes are known (Ahn et al., CVPR 2019).

    The affinity a of a pair is 1 − the strongest boundary on the path between the two. Pairs start
    where all pairs of a pixel end inside the map; on a map with a side below 2·radius + 1 the
    radius is ``(side − 1) // 2`` of the shorter side (ours, as SEAM's AffinityNet has it).

    Args:
      boundary: probabilities.
      displacement: (dy, dx) to the center of a pixel's object, in pixels.
      labels: classes; 0 is background, 255 unknown.
      radius: pairs are closer than this.

    Returns:
      ``background`` and ``foreground``: −log a of pairs of one class; ``different``: −log(1 − a) of
      pairs of two; ``displacement_foreground``: how far the difference of the displacements of two
      pixels of an object is from the way between them; ``displacement_background``: how far from
      zero. 0 for a kind without pairs.
    """
    b, h, w = labels.shape
    shorter = min(h, w)
    reach = ((shorter - 1) // 2 if shorter < 2 * radius + 1 else radius) - 1
    size = (h - max(reach, 0), w - 2 * max(reach, 0))

    def read(values: Array, at: Int[Array, "2"]) -> Array:
        start = (0, at[0], reach + at[1], *([0] * (values.ndim - 3)))
        return lax.dynamic_slice(values, start, (b, *size, *values.shape[3:]))

    # One pair at a time, formed a second time for the gradient: there are 152 pairs of a pixel.
    @jax.checkpoint
    def add(sums: dict[str, Array], pair: tuple[Array, Array]) -> tuple[dict[str, Array], None]:
        points, offset = pair

        def higher(strongest: Array, point: Array) -> tuple[Array, None]:
            return jnp.maximum(strongest, read(boundary, point)), None

        strongest, _ = lax.scan(higher, read(boundary, points[0]), points[1:])
        origin = jnp.zeros_like(offset)
        here, there = read(labels, origin), read(labels, offset)
        known = (here != _IGNORE) & (there != _IGNORE)
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
    """Points and offsets of the pairs in a few parts, the shortest paths first.

    A loop needs paths of one length, and an unrolled one takes minutes to compile: the last point
    is repeated, which changes no maximum. Of a single part it would be half of all points.
    """
    size = -(-len(pairs) // _LOOPS)
    found = []
    for part in (pairs[start : start + size] for start in range(0, len(pairs), size)):
        longest = max(len(path.points) for path in part)
        points = [path.points + path.points[-1:] * (longest - len(path.points)) for path in part]
        offsets = [path.offset for path in part]
        found.append((np.asarray(points, np.int32), np.asarray(offsets, np.int32)))
    return found
