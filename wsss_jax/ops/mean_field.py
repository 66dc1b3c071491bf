"""Mean-field updates of a dense CRF on an accelerator, with lattices that the host has built.

`wsss_jax.host.dense_crf` explains the updates. Splat, blur and slice are sums over tables of
indices, and all updates of an image are one program. An image is padded to one of a few numbers of
pixels, lattice vertices and labels, so that few programs are compiled. Threads may run several
images at a time: while the device updates one, the host builds the lattices of the others.

The results differ from the host's in the last bits, because sums have another order. On a GPU, this
order also differs between two runs.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int, Int32

from wsss_jax.host.dense_crf import Kernels
from wsss_jax.host.lattice import Lattice

_LEAST = 256

Tables = tuple[
    Int[Array, "n corners"],
    Float[Array, "n corners"],
    Int[Array, "axes vertices 2"],
    Int[Array, " n*corners"],
]


class DeviceMeanField:
    """Mean-field updates with the kernels of one image, on JAX's default device.

    It is a `wsss_jax.host.dense_crf.MeanField`.
    """

    def __init__(self, kernels: Kernels):
        first, second = (kernel.lattice for kernel in kernels)
        self._points, shift = first.size
        total = shift + second.size[1]
        # The lattices become one, whose last vertex stands for everything that is missing.
        count = _up(self._points, 4)
        vertices = _up(total + 1, 1)
        sink = vertices - 1
        tables = _corners(first), _corners(second, shift)
        corners, weights = (np.concatenate(some, axis=1) for some in zip(*tables, strict=True))
        missing = ((0, count - self._points), (0, 0))
        near = np.full((len(second.blurs), vertices, 2), sink, np.int32)
        for lattice, start, end in ((first, 0, shift), (second, shift, total)):
            for axis, neighbors in enumerate(_neighbors(lattice, start, sink)):
                near[axis, start:end] = neighbors
        self._tables = _with_order(
            np.pad(corners, missing, constant_values=sink), np.pad(weights, missing), near
        )

    def __call__(
        self, logits: Float32[np.ndarray, "l n"], iterations: int
    ) -> Float32[np.ndarray, "l n"]:
        """Returns the last message; see `wsss_jax.host.dense_crf.MeanField`."""
        labels = len(logits) + len(logits) % 2
        canvas = np.zeros((labels, len(self._tables[0])), np.float32)
        canvas[: len(logits), : self._points] = logits
        canvas[len(logits) :] = -np.inf  # labels of probability 0
        message = np.asarray(_last_message(self._tables, canvas, iterations))
        return np.ascontiguousarray(message[: len(logits), : self._points])


def _up(number: int, steps: int) -> int:
    """Rounds up to a power of two, or to one of the `steps` equal parts of the way to the next."""
    step = (1 << (max(number, _LEAST) - 1).bit_length()) // (2 * steps)
    return -(-max(number, _LEAST) // step) * step


def _corners(
    lattice: Lattice, start: int = 0
) -> tuple[Int32[np.ndarray, "n corners"], Float32[np.ndarray, "n corners"]]:
    """Returns the vertices around each point, numbered from `start`, and their weights."""
    shape = (lattice.size[0], -1)
    return lattice.slice.indices.reshape(shape) + start, lattice.slice.data.reshape(shape)


def _neighbors(lattice: Lattice, start: int, sink: int) -> list[Int32[np.ndarray, "vertices 2"]]:
    """Returns for each axis the two neighbors of the vertices, or `sink` if there is none."""
    rows = [(b.indices.reshape(-1, 3)[:, 1:], b.data.reshape(-1, 3)[:, 1:]) for b in lattice.blurs]
    return [np.where(weight > 0, there + start, sink).astype(np.int32) for there, weight in rows]


@jax.jit
def _with_order(
    corners: Int[Array, "n corners"],
    weights: Float[Array, "n corners"],
    near: Int[Array, "axes vertices 2"],
) -> Tables:
    """Adds the order in which the corners of all points are sorted by vertex."""
    return corners, weights, near, jnp.argsort(corners.ravel())


@jax.jit
def _last_message(
    tables: Tables, planes: Float[Array, "l n"], iterations: int | Int[Array, ""]
) -> Float[Array, "l n"]:
    corners, weights, near, order = tables
    logits = planes.T
    present = logits[0] > -jnp.inf
    points, vertex = order // corners.shape[1], corners.ravel()[order]
    weight = weights.ravel()[order]

    def update(_, message: Float[Array, "n l"]) -> Float[Array, "n l"]:
        q = jnp.where(present, jax.nn.softmax(logits + message) - 1 / present.sum(), 0)
        spread = jax.ops.segment_sum(
            weight[:, None] * q[points], vertex, near.shape[1], indices_are_sorted=True
        )
        for first, second in near.transpose(0, 2, 1):
            spread = spread + 0.5 * (spread[first] + spread[second])
        return (weights[:, :, None] * spread[corners]).sum(1)

    return lax.fori_loop(0, iterations, update, jnp.zeros_like(logits)).T
