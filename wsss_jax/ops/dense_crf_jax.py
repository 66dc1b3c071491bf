"""The dense CRF of `wsss_jax.host.dense_crf` for batches on an accelerator.

The same lattice with shapes that are known beforehand. A corner's number is one uint32: its cell
among those that the largest image could touch, and its class. The distinct numbers, sorted, are the
table of vertices; corners and neighbors look themselves up in it. The table has a fixed capacity,
and whoever finds no place (a missing neighbor, padding) has the row behind its end, which is 0.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from wsss_jax.host.dense_crf import Bilateral, Gaussian

_NOBODY = np.uint32(2**32 - 1)
_EPSILON = 1e-20


class _Kernel(NamedTuple):
    """A kernel over the points of each image, normalized and weighted."""

    vertex: Int[Array, "b corners n"]
    weight: Float[Array, "b corners n"]
    neighbors: Int[Array, "b corners 2 rows"]


class _Numbering(NamedTuple):
    """How the cells of a lattice are counted: from which, and in which steps, per coordinate."""

    low: Int[Array, " d"]
    strides: UInt32[Array, " d"]


class DenseCrfBatch:
    """The CRFs of several images, built once and used for any number of unaries.

    Args:
      images: RGB, padded to one size.
      valid: False where an image is padded; None where none is. Padding has no influence.
      gaussian: (sxy, weight) of the kernel over position.
      bilateral: (sxy, srgb, weight) of the kernel over position and color.
      capacity: vertices of the two lattices for which there is room at first. Where an image needs
        more, the lattice is built again (and compiled, once per size) with room for them.

    Attributes:
      capacity: what it took; handed to the next batch, it saves the second attempt.

    Raises:
      ValueError: a width is not above 0, or so small that 32 bits cannot number the lattice; the
        host's version can, up to 63.
    """

    def __init__(
        self,
        images: UInt8[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        gaussian: Gaussian,
        bilateral: Bilateral,
        capacity: tuple[int, int] = (1 << 14, 1 << 15),
    ):
        if not (min(gaussian[0], *bilateral[:2]) > 0 and min(gaussian[1], bilateral[2]) >= 0):
            raise ValueError(
                f"expected widths above 0 and weights of at least 0, found gaussian {gaussian}"
                f" and bilateral {bilateral}"
            )
        valid = jnp.ones(images.shape[:3], bool) if valid is None else valid
        height, width = images.shape[1:3]
        sides = (width - 1, height - 1, 255, 255, 255)
        divisors = ([gaussian[0]] * 2, [bilateral[0]] * 2 + [bilateral[1]] * 3)
        numberings = [
            _numbering([a / b for a, b in zip(sides, some, strict=False)]) for some in divisors
        ]
        kernels, rooms = [], []
        for index, weight in enumerate((gaussian[1], bilateral[2])):
            scale = jnp.array(divisors[index], jnp.float32)
            arguments = images, valid, scale, float(weight), numberings[index]
            kernel, used = _build(*arguments, room := capacity[index])
            if (most := int(used.max())) > room:
                kernel, _ = _build(*arguments, room := 1 << (most - 1).bit_length())
            kernels.append(kernel)
            rooms.append(room)
        self.capacity = (rooms[0], rooms[1])
        self._kernels: tuple[_Kernel, ...] = tuple(kernels)

    def infer(self, unary: Float[Array, "b h w l"], iterations: int) -> Float[Array, "b h w l"]:
        """The mean-field distributions over labels after `iterations` updates.

        In padding it is softmax(−unary). A unary that is not finite gives NaN.
        """
        return _infer(self._kernels, unary, iterations)


def dense_crf_batch(
    images: UInt8[Array, "b h w 3"],
    unary: Float[Array, "b h w l"],
    valid: Bool[Array, "b h w"] | None = None,
    *,
    gaussian: Gaussian,
    bilateral: Bilateral,
    iterations: int,
) -> Float[Array, "b h w l"]:
    """The distributions over labels of images with one unary each; see `DenseCrfBatch`."""
    crf = DenseCrfBatch(images, valid, gaussian=gaussian, bilateral=bilateral)
    return crf.infer(unary, iterations)


@functools.partial(jax.jit, static_argnames="capacity")
def _build(
    images: UInt8[Array, "b h w 3"],
    valid: Bool[Array, "b h w"],
    divisors: Float[Array, " d"],
    weight: float | Float[Array, ""],
    numbering: _Numbering,
    capacity: int,
) -> tuple[_Kernel, Int[Array, " b"]]:
    """The kernel over x and y, and color where there are five `divisors`; vertices per image.

    Only shapes and `capacity` are compiled in: all settings share a program.
    """
    grid = jnp.indices(images.shape[1:3], jnp.float32)[::-1].reshape(2, -1)

    def one(image: UInt8[Array, "h w 3"], inside: Bool[Array, "h w"]):
        color = image.reshape(-1, 3).T.astype(jnp.float32)
        features = jnp.concatenate([grid, color])[: len(divisors)] / divisors[:, None]
        return _lattice(features, inside.ravel(), weight, numbering, capacity)

    return jax.vmap(one)(images, valid)


def _lattice(
    features: Float[Array, "d n"],
    inside: Bool[Array, " n"],
    weight: float | Float[Array, ""],
    numbering: _Numbering,
    capacity: int,
) -> tuple[_Kernel, Int[Array, ""]]:
    size = len(features) + 1
    classes = jnp.arange(size)
    base, rank, place = _simplex(features)
    steps = jnp.append(numbering.strides, jnp.uint32(0))  # the last coordinate follows
    cell = (base[:-1] - numbering.low[:, None]).astype(jnp.uint32) * numbering.strides[:, None]
    below = rank > size - 1 - classes[:, None, None]
    cell = cell.sum(0) - jnp.where(below, steps[:, None], 0).sum(1, dtype=jnp.uint32)
    keys = jnp.where(inside, cell * size + classes[:, None].astype(jnp.uint32), _NOBODY)

    ordered = jnp.sort(keys.ravel())
    new = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]]) & (ordered != _NOBODY)
    number = jnp.cumsum(new)
    table = jnp.full(capacity, _NOBODY, jnp.uint32)
    table = table.at[jnp.where(new, number - 1, capacity)].set(ordered, mode="drop")

    # Along an axis, one neighbor is of the class before a vertex's own, at a constant distance;
    # the other is that relation read backwards.
    whole, own = table // size, (table % size).astype(jnp.int32)
    total = numbering.strides.sum(dtype=jnp.uint32)
    before = whole + steps[:, None] - jnp.where(own == 0, total, 0)
    after = whole - steps[:, None] + jnp.where(own == size - 1, total, 0)
    pairs = jnp.stack([before, after], 1) * size
    pairs += (jnp.stack([own - 1, own + 1]) % size).astype(jnp.uint32)
    rows = jnp.where(table == _NOBODY, capacity, _find(table, pairs))
    neighbors = jnp.pad(rows, ((0, 0), (0, 0), (0, 1)), constant_values=capacity)

    first = place[-1:] + 1 - place[:1]
    barycentric = jnp.concatenate([first, (place[:-1] - place[1:])[::-1]])
    kernel = _Kernel(_find(table, keys), jnp.where(inside, barycentric, 0), neighbors)
    sums = _apply(kernel, jnp.ones((features.shape[1], 1), jnp.float32))[:, 0]
    factor = jnp.sqrt(weight) / jnp.sqrt(sums + _EPSILON)
    return kernel._replace(weight=kernel.weight * factor), number[-1]


def _simplex(
    features: Float[Array, "d n"],
) -> tuple[Int[Array, "corners n"], Int[Array, "corners n"], Float[Array, "corners n"]]:
    """Base and rank as in `wsss_jax.host.lattice`; the remainders by rank, greatest first."""
    size = len(features) + 1
    running = jnp.zeros_like(features[0])
    elevated = []
    for axis in range(size - 1, 0, -1):
        scaled = features[axis - 1] * jnp.float32(_scale(size, axis))
        elevated.append(running - axis * scaled)
        running = running + scaled
    elevated = jnp.stack([running, *elevated[::-1]])
    base = jnp.rint(elevated / size)
    offset = elevated - base * size
    # The rank is the number of greater offsets; of equal ones the later coordinate's is greater.
    classes = jnp.arange(size)
    earlier = (classes < classes[:, None])[..., None]
    greater = (offset > offset[:, None]) | (earlier & (offset == offset[:, None]))
    rank = base.sum(0).astype(jnp.int32) + greater.sum(1, dtype=jnp.int32)
    turn = (rank < 0).astype(jnp.int32) - (rank >= size).astype(jnp.int32)
    rank, base = rank + size * turn, base + turn
    remainder = (elevated - base * size) / size
    # Each rank belongs to one coordinate, so the sums have one term that is not 0.
    place = jnp.where(rank == classes[:, None, None], remainder, 0).sum(1)
    return base.astype(jnp.int32), rank, place


def _scale(size: int, axis: int) -> float:
    return math.sqrt(2 / 3) * size / math.sqrt(axis * (axis + 1))


def _numbering(largest: list[float]) -> _Numbering:
    """For features from 0 to `largest`.

    Raises:
      ValueError: the corners cannot be numbered with 32 bits.
    """
    size = len(largest) + 1
    scaled = [value * _scale(size, axis) for axis, value in enumerate(largest, 1)]
    low, strides, count = [], [], 1
    for i in range(size - 1):
        below = i * scaled[i - 1] if i else 0.0
        # A point lies up to 2 cells beside its elevated features, a corner 1, a neighbor 1.
        low.append(math.floor(-below / size) - 4)
        strides.append(count)
        count *= math.ceil(sum(scaled[i:]) / size) + 3 - low[-1]
    if count * size > 2**32 - 1:
        raise ValueError(
            f"the features span {count} cells of the lattice, too many to number in 32 bits: widen"
            " the kernel, or use the host's version"
        )
    return _Numbering(jnp.array(low, jnp.int32), jnp.array(strides, jnp.uint32))


def _find(table: UInt32[Array, " m"], keys: UInt32[Array, "*s"]) -> Int[Array, "*s"]:
    """The row of each key; the one behind the last where it is not in the table."""
    row = jnp.minimum(jnp.searchsorted(table, keys), len(table) - 1)
    there = (table[row] == keys) & (keys != _NOBODY)
    return jnp.where(there, row, len(table)).astype(jnp.int32)


def _apply(kernel: _Kernel, values: Float[Array, "n l"]) -> Float[Array, "n l"]:
    """One image's kernel: splat, blur along each axis, slice; loops keep the program small."""

    def splat(spread, corner):
        vertex, weight = corner
        return spread.at[vertex].add(weight[:, None] * values), None

    def blur(spread, pair):
        return spread + 0.5 * (spread[pair[0]] + spread[pair[1]]), None

    def read(result, corner):
        vertex, weight = corner
        return result + weight[:, None] * spread[vertex], None

    corners = kernel.vertex, kernel.weight
    spread = jnp.zeros((kernel.neighbors.shape[-1], values.shape[1]), values.dtype)
    spread, _ = jax.lax.scan(splat, spread, corners)
    spread, _ = jax.lax.scan(blur, spread, kernel.neighbors)
    return jax.lax.scan(read, jnp.zeros_like(values), corners)[0]


@jax.jit
def _infer(
    kernels: tuple[_Kernel, ...],
    unary: Float[Array, "b h w l"],
    iterations: int | Int[Array, ""],
) -> Float[Array, "b h w l"]:
    def one(kernels: tuple[_Kernel, ...], unary: Float[Array, "h w l"]):
        logits = -unary.reshape(-1, unary.shape[-1])

        def update(_, message):
            # See the host's version: centered, the last label follows from the others.
            q = jax.nn.softmax(logits + message) - jnp.float32(1 / logits.shape[1])
            others = functools.reduce(jnp.add, (_apply(kernel, q[:, :-1]) for kernel in kernels))
            return jnp.concatenate([others, -others.sum(1, keepdims=True)], 1)

        message = jax.lax.fori_loop(0, iterations, update, jnp.zeros_like(logits))
        return jax.nn.softmax(logits + message).reshape(unary.shape)

    return jax.vmap(one)(kernels, unary)
