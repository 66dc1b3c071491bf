"""Weights of the reference values: drawn from PyTorch parameter names, so no file has to hold them.

Every array has its own generator, seeded by its name: kernels are normal with variance 1 / fan-in,
scales and variances uniform in [0.5, 1.5), biases and means normal with deviation 0.1.
"""

import zlib
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from wsss_jax.models.import_weights import import_arrays, torch_names


def draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The array that belongs to a name and a shape (PyTorch's layout)."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith(("running_mean", "bias")):
        values = 0.1 * generator.standard_normal(shape)
    elif name.endswith("running_var") or len(shape) == 1:
        values = generator.uniform(0.5, 1.5, shape)
    else:
        values = generator.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    return values.astype(np.float32)


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """HWIO to OIHW, (in, out) to (out, in)."""
    if len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    return tuple(reversed(shape))


def drawn_arrays(shapes: dict[str, Any], module: ModuleType | None, seed: int) -> dict:
    """Arrays by PyTorch name for a tree of variables or their shapes."""
    flat: dict[str, Any] = dict(traverse_util.flatten_dict(shapes, sep="/"))
    names = torch_names(shapes, module)
    return {names[path]: draw(names[path], torch_shape(flat[path].shape), seed) for path in flat}


def drawn_variables(model: nn.Module, module: ModuleType | None, seed: int) -> dict[str, Any]:
    """Variables of a network by collection."""
    shapes: Any = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return import_arrays(shapes, drawn_arrays(shapes, module, seed), module=module)


def torch_norm(value: jax.Array | np.ndarray) -> float:
    """The norm of a parameter (our layout) with the rounding of PyTorch's sum on a CPU.

    It adds squares in PyTorch's order in eight float32 lanes: 0.1 % too small for 19 M numbers, and
    the reference norms have that in them.
    """
    array = np.asarray(value, np.float32)
    array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    squares = np.square(array.ravel())
    squares = np.pad(squares, (0, -squares.size % 8)).reshape(-1, 8)
    return float(np.sqrt(np.cumsum(squares, 0, dtype=np.float32)[-1].sum(dtype=np.float32)))
