"""PyTorch's names and layouts of variables, which files of other programs have by default."""

import numpy as np

LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
"""PyTorch's names of variables, by our collection and name; other variables keep their name."""


def torch_name(path: tuple[str, ...]) -> str:
    """Returns PyTorch's name for a path: ``params, layer, kernel`` is ``layer.weight``."""
    collection, *modules, leaf = path
    return ".".join([*modules, LEAVES.get((collection, leaf), leaf)])


def to_torch_layout(array: np.ndarray) -> np.ndarray:
    """Converts our layout to PyTorch's; it is the inverse of `from_torch_layout`."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T if array.ndim == 2 else array


def from_torch_layout(array: np.ndarray) -> np.ndarray:
    """Converts PyTorch's layout to ours: OIHW to HWIO, and (out, in) to (in, out).

    A depthwise kernel [c, 1, h, w] becomes [h, w, 1, c] by the same rule. Other arrays stay as they
    are.
    """
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array
