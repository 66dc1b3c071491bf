"""PyTorch's names and layouts of variables: what files of other programs hold, by default."""

import numpy as np

LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
"""PyTorch's name of a variable, by our collection and name; others are called the same."""


def torch_name(path: tuple[str, ...]) -> str:
    """``params, layer, kernel`` is ``layer.weight``; a leaf that `LEAVES` lacks keeps its name."""
    collection, *modules, leaf = path
    return ".".join([*modules, LEAVES.get((collection, leaf), leaf)])


def from_torch_layout(array: np.ndarray) -> np.ndarray:
    """PyTorch's layout to ours: OIHW to HWIO, (out, in) to (in, out), others as they are.

    A depthwise kernel [c, 1, h, w] becomes [h, w, 1, c] by the same rule.
    """
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array
