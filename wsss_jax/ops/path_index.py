"""The pairs of pixels that AffinityNet and IRNet compare, and the paths between them.

Every unordered pair appears once: an offset (dy, dx) leads from a pixel to another one that lies
to its right in the same row, or in a row below.
"""

from typing import NamedTuple

RADIUS = 5
"""The published radius of AffinityNet and of IRNet's walk; pairs are *closer* than it."""

Offset = tuple[int, int]


class Path(NamedTuple):
    """A pair's offset and the pixels (y, x) on the line to it, both ends included."""

    offset: Offset
    points: tuple[Offset, ...]


def pair_offsets(radius: int = RADIUS) -> tuple[Offset, ...]:
    """Returns AffinityNet's pairs in the order of its program (Ahn & Kwak, CVPR 2018).

    The pairs within the row come first, then those of each row below, from left to right. A radius
    of 5 gives 34 pairs.
    """
    row = [(0, x) for x in range(1, radius)]
    below = [
        (y, x)
        for y in range(1, radius)
        for x in range(1 - radius, radius)
        if y * y + x * x < radius * radius
    ]
    return tuple(row + below)


def paths(radius: int = RADIUS) -> tuple[Path, ...]:
    """Returns IRNet's pairs with their paths, the shortest paths first (Ahn et al., CVPR 2019).

    A path consists of the points in the offset's bounding box that are less than a pixel away from
    the line. The order is that of IRNet's program, which groups the pairs by path length.
    """
    found = [Path(offset, _points(*offset)) for offset in pair_offsets(radius)]
    return tuple(sorted(found, key=lambda path: len(path.points)))


def _points(dy: int, dx: int) -> tuple[Offset, ...]:
    columns = range(min(dx, 0), max(dx, 0) + 1)
    box = [(y, x) for y in range(dy + 1) for x in columns]
    return tuple((y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy * dy + dx * dx)
