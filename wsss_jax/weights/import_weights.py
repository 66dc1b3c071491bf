"""Imports the weights of other programs from checkpoints, mostly with PyTorch's names.

Names follow from the paths of our variables: ``backbone/b4_1/conv_branch2a/kernel`` is
``b4_1.conv_branch2a.weight``. A backbone states other names or layouts in files with
`Backbone.import_name` and `Backbone.import_layout`, and names under which its weights are also
published with `Backbone.foreign_arrays`. It resizes position embeddings of another grid with
`Backbone.resize_param`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.models.torch_names import from_torch_layout, torch_name
from wsss_jax.weights.checkpoint import read_checkpoint

HEADS = r"(classifier|_?fc\w*|f8_\d|f9)\..*"
"""Layers after the backbone in published files, such as classifiers and heads of other methods."""

Variables = dict[str, Any]


def torch_names(variables: Variables, backbone: Backbone | None = None) -> dict[str, str]:
    """Returns every variable's name in files, by path like ``params/b4_1/conv_branch2a/kernel``.

    Args:
      variables: Flax variables by collection; a backbone is the submodule ``backbone``.
      backbone: the backbone, which names its own variables, or None if there is none.
    """
    names: dict[str, str] = {}
    for path in traverse_util.flatten_dict(variables):
        inside = _inside_backbone(path)
        if backbone is None or inside is None:
            names["/".join(path)] = torch_name(inside or path)
        else:
            names["/".join(path)] = backbone.import_name(inside)
    return names


def _inside_backbone(path: tuple[str, ...]) -> tuple[str, ...] | None:
    """Returns the path of a backbone's variable without ``backbone``; None for other variables."""
    collection, module, *rest = path
    return (collection, *rest) if module == "backbone" and rest else None


def _as_variable(
    path: str, array: np.ndarray, shape: tuple[int, ...], backbone: Backbone | None
) -> np.ndarray:
    """Converts an array of a file to our layout and, if the backbone can, to `shape`."""
    if _is_floating(array) and array.dtype.itemsize < 4:  # NumPy computes with few types of 16 bits
        array = array.astype(np.float32)
    inside = _inside_backbone(tuple(path.split("/")))
    if backbone is None or inside is None:
        return from_torch_layout(array)
    array = backbone.import_layout(inside, array)
    if array.shape == shape or not _is_floating(array):
        return array  # numbers that are not floating are refused, in whatever shape
    return backbone.resize_param(inside, array, shape)


def _is_floating(array: np.ndarray) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


def _listed(title: str, names: Iterable[str], most: int = 8) -> list[str]:
    names = sorted(names)
    if not names:
        return []
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"{len(names)} {title}: {', '.join(names[:most])}{more}"]


def import_arrays(
    variables: Variables,
    arrays: Mapping[str, np.ndarray],
    *,
    backbone: Backbone | None = None,
    ignore: str = r"(?!)",
    source: str = "the weights",
    log: Callable[[str], None] = lambda _: None,
) -> Variables:
    """Returns `variables` with the values of `arrays` in float32; names and shapes must agree.

    Shapes that the backbone can resize (position embeddings) count as equal.

    Args:
      variables: Flax variables (or their shapes) by collection.
      arrays: arrays by their name in the file. ``num_batches_tracked`` is skipped, and so is a
        prefix ``module.`` (of a network that was saved in its parallel wrapper).
      backbone: the backbone, or None if there is none.
      ignore: a regular expression for names that may be missing from `arrays`, and then keep their
        value, or may be unexpected.
      source: the name of the arrays in messages.
      log: a function that is told what was imported and what was ignored.

    Raises:
      UserError: arrays are missing, unexpected, of another shape or not finite; the first ones are
        named.
    """
    found: Mapping[str, np.ndarray] = {
        name.removeprefix("module."): array
        for name, array in arrays.items()
        if not name.endswith("num_batches_tracked")
    }
    if backbone is not None:
        found = backbone.foreign_arrays(found)
    flat: dict[str, Any] = dict(traverse_util.flatten_dict(variables, sep="/"))
    names = torch_names(variables, backbone)

    missing = set(names.values()) - set(found)
    unexpected = set(found) - set(names.values())
    optional = {name for name in missing | unexpected if re.fullmatch(ignore, name)}
    wrong: list[str] = []
    for path, name in names.items():
        if name not in found:
            continue
        array = _as_variable(path, found[name], tuple(flat[path].shape), backbone)
        if array.shape != flat[path].shape:
            expected = tuple(flat[path].shape)
            wrong.append(f"{name} (expected {expected}, found {array.shape} in our layout)")
        elif not _is_floating(array) or not np.isfinite(array).all():
            wrong.append(f"{name} (expected finite numbers)")
        else:
            flat[path] = jnp.asarray(array, jnp.float32)
    problems = (
        _listed("missing", missing - optional)
        + _listed("unexpected", unexpected - optional)
        + _listed("that do not fit", wrong)
    )
    if problems:
        raise UserError(
            f"expected the {len(names)} arrays of this network in {source}, found"
            f" {'; '.join(problems)}: use the file of this network"
        )
    ignored = _listed("kept as initialized", missing) + _listed("left out", unexpected)
    log("; ".join([f"{len(names) - len(missing)} arrays from {source}", *ignored]))
    return traverse_util.unflatten_dict(flat, sep="/")


def import_backbone(
    path: Path,
    backbone: Backbone,
    params: PyTree,
    variables: PyTree,
    log: Callable[[str], None] = lambda _: None,
) -> tuple[PyTree, PyTree]:
    """Returns a network's (params, other variables) with the backbone's weights from a file.

    Args:
      path: a checkpoint, whose layers after the backbone are left out.
      backbone: the backbone of the network.
      params: the network's parameters; the backbone's are under ``backbone``.
      variables: the other variables by collection.
      log: a function that is told what was imported.

    Raises:
      UserError: the file does not hold exactly the weights of this backbone.
    """
    checkpoint = read_checkpoint(path)
    source = f"{path} ({', '.join([checkpoint.format, *checkpoint.notes])})"
    everything = {"params": params, **variables}
    part = {
        collection: {"backbone": tree["backbone"]}
        for collection, tree in everything.items()
        if "backbone" in tree
    }
    part = import_arrays(
        part, checkpoint.arrays, backbone=backbone, ignore=HEADS, source=source, log=log
    )
    for collection, tree in part.items():
        everything[collection] = {**everything[collection], **tree}
    return everything.pop("params"), everything
