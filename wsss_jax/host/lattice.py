"""Gaussian filtering in many dimensions on the permutohedral lattice, on the host.

Sources: Adams, Baek, Davis: Fast High-Dimensional Filtering Using the Permutohedral Lattice
(Eurographics 2010), and the symmetric normalization of Krähenbühl and Koltun (ICML 2013). Values of
points are spread to the corners of their simplices (splat), blurred along the lattice's D = d + 1
axes, and read back (slice). Splat and slice are sparse matrices, so that a filter is a few sparse
products.

The module does not import JAX, so that the processes that share the images of a folder start
quickly.
"""

import math

import cv2
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Int8, Int64

_EPSILON = np.float32(1e-20)
_KEY_BITS = 63
_FARTHEST = 2**18  # float32 cannot distinguish corners that are farther from the origin than this
_BLOCK = 1 << 13  # number of points whose intermediate arrays fit into a processor's cache


class Simplices:
    """The lattice simplex around each of n points, and the point's place in it.

    The corners of a simplex are distinguished by their class r = 0…d, which is the remainder of all
    D coordinates of the corner after division by D. The quotients, rounded down, are
    ``base − (rank > d − r)``.

    Attributes:
      base: the coordinates of the simplex's corner of class 0, divided by D [D, n].
      rank: the place of each coordinate when their remainders are sorted in descending order
        [D, n].
      weight: the barycentric coordinates, with one row for each class of corners [D, n].
    """

    base: Float32[np.ndarray, "corners n"]
    rank: Int8[np.ndarray, "corners n"]
    weight: Float32[np.ndarray, "corners n"]

    def __init__(self, features: Float32[np.ndarray, "d n"]):
        shape = (len(features) + 1, features.shape[1])
        self.base = np.empty(shape, np.float32)
        self.rank = np.empty(shape, np.int8)
        self.weight = np.empty(shape, np.float32)
        for block in _blocks(shape[1]):
            self._locate(features, block)

    def _locate(self, features: Float32[np.ndarray, "d n"], block: slice) -> None:
        elevated = _elevate(features[:, block])
        size, count = elevated.shape
        base, rank, weight = (a[:, block] for a in (self.base, self.rank, self.weight))
        np.rint(elevated / np.float32(size), out=base)
        offset = elevated - base * np.float32(size)
        # The rank is the number of larger offsets. Where the rounded coordinates do not sum to 0,
        # the point has left the plane by as many steps, and the ranks rotate by that number.
        rank[:] = base.sum(0) + np.arange(size, dtype=np.float32)[:, None]
        for first in range(size):
            for second in range(first + 1, size):
                smaller = (offset[first] < offset[second]).view(np.int8)
                rank[first] += smaller
                rank[second] -= smaller
        turn = (rank < 0).view(np.int8) - (rank >= size).view(np.int8)
        rank += np.int8(size) * turn
        base += turn
        place = np.empty_like(elevated)  # by rank, greatest first
        flat = rank.astype(np.intp) * count + np.arange(count)
        place.ravel()[flat] = (elevated - base * np.float32(size)) / np.float32(size)
        weight[0] = place[-1] + np.float32(1) - place[0]
        weight[1:] = (place[:-1] - place[1:])[::-1]


def _elevate(features: Float32[np.ndarray, "d n"]) -> Float32[np.ndarray, "corners n"]:
    """The features in the plane of D coordinates that sum to 0, scaled for the blur."""
    size = len(features) + 1
    scale = math.sqrt(2 / 3) * size
    elevated = np.empty((size, features.shape[1]), np.float32)
    running = np.zeros(features.shape[1], np.float32)
    for axis in range(size - 1, 0, -1):
        scaled = features[axis - 1] * np.float32(scale / math.sqrt(axis * (axis + 1)))
        elevated[axis] = running - np.float32(axis) * scaled
        running += scaled
    elevated[0] = running
    return elevated


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]


class Lattice:
    """A Gaussian filter over n points with `features` [d, n] in standard deviations.

    Attributes:
      size: the numbers of points and of vertices.
      slice: the matrix from values of the vertices to values of the points [n, vertices].
      splat: the transpose of `slice`, which shares its memory. Its products add one point after the
        other to the vertices, which fit into a processor's cache. If it were stored by vertices, a
        product with many columns would take up to six times as long, because points do not fit.
      blurs: one matrix [vertices, vertices] for each axis.

    Raises:
      ValueError: the features spread too far to distinguish the vertices of the lattice.
    """

    def __init__(self, features: Float32[np.ndarray, "d n"]):
        if not np.abs(features).max() < _FARTHEST:
            raise ValueError(
                f"expected features below {_FARTHEST} standard deviations, found"
                f" {np.abs(features).max():g}; widen the kernel"
            )
        simplices = Simplices(features)
        size, count = simplices.base.shape
        bits = max(count - 1, 0).bit_length()
        keys, strides = _corner_keys(simplices, _KEY_BITS - bits)
        indices = np.empty((size, count), np.int32)
        vertices, total = [], 0
        for corner in range(size):
            # Key and point are sorted as one number, which groups the points of a vertex.
            order = keys[corner]
            order <<= bits
            order |= np.arange(count)
            order.sort()
            at = order & ((1 << bits) - 1)
            order >>= bits
            new = np.empty(count, bool)
            new[0] = True
            np.not_equal(order[1:], order[:-1], out=new[1:])
            first = np.flatnonzero(new)
            number = np.arange(total, total + len(first), dtype=np.int32)
            indices[corner][at] = np.repeat(number, np.diff(first, append=count))
            vertices.append(order[first])
            total += len(first)
        rows = np.arange(0, size * count + 1, size, dtype=np.int32)
        by_point = (cv2.transpose(simplices.weight).ravel(), cv2.transpose(indices).ravel(), rows)
        self.size = count, total
        self.slice = sp.csr_array(by_point, (count, total))
        self.splat = self.slice.T
        self.blurs = _blurs(vertices, strides)

    def apply(self, values: Float32[np.ndarray, "n *l"]) -> Float32[np.ndarray, "n *l"]:
        """Filters values; with more than three columns, one call is faster than one per column."""
        spread = self.splat @ values
        for blur in self.blurs:
            spread = blur @ spread
        return self.slice @ spread


def _corner_keys(
    simplices: Simplices, bits: int
) -> tuple[Int64[np.ndarray, "corners n"], Int64[np.ndarray, " d"]]:
    """Returns a number per corner, unique within its class, and the step along each axis."""
    base = simplices.base[:-1]  # the last coordinate follows from the others
    # A corner lies up to 1 below its base, and a neighbor up to 1 beside a corner.
    low = base.min(1).astype(np.int64) - 2
    radix = (base.max(1).astype(np.int64) - low + 2).tolist()
    if math.prod(radix).bit_length() > bits:
        raise ValueError(
            f"the features span {radix} cells of the lattice, too many to number in {bits} bits;"
            " widen the kernel"
        )
    strides = np.array([math.prod(radix[:axis]) for axis in range(len(radix))], np.int64)
    keys = np.empty(simplices.base.shape, np.int64)
    for block in _blocks(len(keys[0])):
        some, rank, count = keys[:, block], simplices.rank[:, block], block.stop - block.start
        # Row r says by how much the corner of class r lies below that of class r − 1. The last row
        # belongs to the coordinate of rank 0, which no corner rounds down.
        steps = np.zeros((len(keys) + 1, count), np.int64)
        some[0] = -(low @ strides)
        for axis, stride in enumerate(strides):
            row = len(keys) - rank[axis].astype(np.intp)
            steps.ravel()[row * count + np.arange(count)] = stride
            some[0] += base[axis, block].astype(np.int64) * stride
        for corner in range(1, len(some)):
            np.subtract(some[corner - 1], steps[corner], out=some[corner])
    return keys, strides


def _blurs(
    vertices: list[Int64[np.ndarray, " _"]], strides: Int64[np.ndarray, " d"]
) -> tuple[sp.csr_array, ...]:
    """Returns the blur ½, 1, ½ along each axis, where neighbors without points count as 0.

    One neighbor of a vertex of class r has class r − 1, and its key differs by a constant. The
    other neighbor follows from the same relation in the opposite direction.
    """
    size, total = len(vertices), sum(map(len, vertices))
    begins = np.cumsum([0, *map(len, vertices)])
    rows = np.arange(0, 3 * total + 1, 3, dtype=np.int32)
    blurs = []
    for axis in range(size):
        columns = np.repeat(np.arange(total, dtype=np.int32)[:, None], 3, 1)
        data = np.zeros((total, 3), np.float32)
        data[:, 0] = 1
        for corner, own in enumerate(vertices):
            others = vertices[corner - 1]
            shift = (strides[axis] if axis < size - 1 else 0) - (strides.sum() if not corner else 0)
            wanted = own + shift
            found = np.minimum(np.searchsorted(others, wanted), len(others) - 1)
            match = np.flatnonzero(others[found] == wanted)
            here, there = match + begins[corner], found[match] + begins[(corner - 1) % size]
            columns[here, 1], data[here, 1] = there, 0.5
            columns[there, 2], data[there, 2] = here, 0.5
        blurs.append(sp.csr_array((data.ravel(), columns.ravel(), rows), (total, total)))
    return tuple(blurs)


class NormalizedKernel:
    """The kernel ``weight · K̂``, where K̂ = n ⊙ K (n ⊙ ·) and n = 1/√(K 1), as one lattice.

    Attributes:
      lattice: the lattice, whose splat and slice include n and the weight.
    """

    def __init__(self, features: Float32[np.ndarray, "d n"], weight: float | int):
        """Builds the lattice; `weight` is not negative."""
        self.lattice = lattice = Lattice(features)
        ones = np.ones(features.shape[1], np.float32)
        factor = np.float32(math.sqrt(weight)) / np.sqrt(lattice.apply(ones) + _EPSILON)
        lattice.slice.data *= np.repeat(factor, len(features) + 1)  # and thereby that of `splat`

    def apply(self, values: Float32[np.ndarray, "n *l"]) -> Float32[np.ndarray, "n *l"]:
        """Filters, normalizes and weights values; see `Lattice.apply`."""
        return self.lattice.apply(values)
