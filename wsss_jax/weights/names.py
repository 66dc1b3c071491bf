"""The names of variables in files: ours, which are paths, and those of other programs.

Our name is ``params/backbone/b4_1/conv_branch2a/kernel``. The name in a file of another program is,
by default, PyTorch's without the backbone's module, ``b4_1.conv_branch2a.weight``; a backbone can
state other names.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from wsss_jax.models.base import Backbone
from wsss_jax.models.torch_names import to_torch_layout, torch_name

Variables = dict[str, Any]

_COLLECTIONS = ("params/", "batch_stats/", "prototypes/")


def torch_names(variables: Variables, backbone: Backbone | None = None) -> dict[str, str]:
    """Returns every variable's name in files, by path like ``params/b4_1/conv_branch2a/kernel``.

    Args:
      variables: Flax variables by collection; a backbone is the submodule ``backbone``.
      backbone: the backbone, which names its own variables, or None if there is none.
    """
    names: dict[str, str] = {}
    for path in traverse_util.flatten_dict(variables):
        inside = inside_backbone(path)
        if backbone is None or inside is None:
            names["/".join(path)] = torch_name(inside or path)
        else:
            names["/".join(path)] = backbone.import_name(inside)
    return names


def inside_backbone(path: tuple[str, ...]) -> tuple[str, ...] | None:
    """Returns the path of a backbone's variable without ``backbone``; None for other variables."""
    collection, module, *rest = path
    return (collection, *rest) if module == "backbone" and rest else None


def has_our_names(arrays: Mapping[str, Any]) -> bool:
    """Returns whether arrays have the names of our variables, as those of a run do."""
    return bool(arrays) and all(name.startswith(_COLLECTIONS) for name in arrays)


def foreign_arrays(
    arrays: Mapping[str, np.ndarray], variables: Variables, backbone: Backbone | None
) -> Mapping[str, np.ndarray]:
    """Gives the arrays of a file the names that `torch_names` gives the variables of a network.

    Arrays of our names that the network lacks keep them.

    Args:
      arrays: arrays by name, of any program or of ours.
      variables: the network's variables (or their shapes) by collection.
      backbone: the backbone, which knows names of other programs, or None if there is none.
    """
    if has_our_names(arrays):
        mine = {"/".join(path) for path in traverse_util.flatten_dict(variables)}
        others = {name: array for name, array in arrays.items() if name not in mine}
        arrays = to_torch({n: a for n, a in arrays.items() if n in mine}, backbone) | others
    return arrays if backbone is None else backbone.foreign_arrays(arrays)


def to_torch(arrays: Mapping[str, np.ndarray], backbone: Backbone | None) -> dict[str, np.ndarray]:
    """Gives arrays with our names PyTorch's names and layouts; importing them is the inverse.

    Args:
      arrays: the arrays by path, in our layout.
      backbone: the backbone, which names its own variables, or None if there is none.
    """
    names = torch_names(traverse_util.unflatten_dict(dict(arrays), sep="/"), backbone)
    found: dict[str, np.ndarray] = {}
    for path, array in arrays.items():
        inside = inside_backbone(tuple(path.split("/")))
        if backbone is None or inside is None:
            found[names[path]] = to_torch_layout(array)
        else:
            found[names[path]] = backbone.export_layout(inside, array)
    if len(found) != len(arrays):
        raise ValueError("expected different names of all variables")
    return found
