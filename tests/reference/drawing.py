"""Weights that are drawn from their names and shapes, so that no file has to hold them."""

import zlib
from collections.abc import Sequence

import numpy as np

SEED = 5
"""The seed of the weights and the image with which backbones are compared."""


def draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The array that belongs to a name and a shape (PyTorch's layout).

    Every array has its own generator, seeded by its name: kernels are normal with variance
    1 / fan-in, scales and variances uniform in [0.5, 1.5), biases and means normal with deviation
    0.1.
    """
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith(("running_mean", "bias")):
        values = 0.1 * generator.standard_normal(shape)
    elif name.endswith("running_var") or len(shape) == 1:
        values = generator.uniform(0.5, 1.5, shape)
    else:
        values = generator.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    return np.asarray(values, np.float32)


def image(size: Sequence[int]) -> np.ndarray:
    """A normalized image [1, h, w, 3] of noise."""
    return np.random.default_rng(SEED).standard_normal((1, *size, 3)).astype(np.float32)
