"""Weights of other programs, as data: a ``.npz`` file of arrays, mostly under PyTorch's names.

A PyTorch checkpoint becomes such a file where PyTorch is at hand, with

    np.savez("weights.npz", **{k: v.numpy() for k, v in torch.load("weights.pth").items()})

Names come from the paths of our variables: ``backbone/b4_1/conv_branch2a/kernel`` is
``b4_1.conv_branch2a.weight``. A backbone whose variables have other names or layouts in files says
so by `Backbone.import_name` and `Backbone.import_layout`, one whose weights are also published
under other names by `Backbone.foreign_name`, and one that can take over position embeddings of
another grid by `Backbone.resize_param`.
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

HEADS = r"(classifier|fc\w*|f8_\d|f9)\..*"
"""Layers after the backbone in published files: classifiers and the heads of other methods."""

Variables = dict[str, Any]


def torch_names(variables: Variables, backbone: Backbone | None = None) -> dict[str, str]:
    """The name in files of every variable, by path such as ``params/b4_1/conv_branch2a/kernel``.

    Args:
      variables: Flax variables by collection; the backbone, if any, is the submodule ``backbone``.
      backbone: names its own variables; None where there is none.
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
    """The path of one of the backbone's variables without ``backbone``; None for another one's."""
    collection, module, *rest = path
    return (collection, *rest) if module == "backbone" and rest else None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file by name.

    Raises:
      UserError: no such file, or it is no archive of plain arrays.
    """
    try:
        # NumPy leaves a file that it opened itself open when the archive turns out damaged.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise UserError(f"expected weights (.npz) at {path}, found no such file") from error
    except Exception as error:  # NumPy, zipfile and zlib each have their own
        raise UserError(
            f"expected weights (.npz with plain arrays) in {path}, found something else ({error}):"
            " convert a PyTorch file with np.savez first"
        ) from error


def _as_variable(
    path: str, array: np.ndarray, shape: tuple[int, ...], backbone: Backbone | None
) -> np.ndarray:
    """An array of a file in our layout and, where the backbone knows how, of `shape`."""
    inside = _inside_backbone(tuple(path.split("/")))
    if backbone is None or inside is None:
        return from_torch_layout(array)
    array = backbone.import_layout(inside, array)
    if array.shape == shape or not np.issubdtype(array.dtype, np.floating):
        return array  # numbers that are not floating are refused, in whatever shape
    return backbone.resize_param(inside, array, shape)


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
    """`variables` with the values of `arrays`, float32; every name and shape has to agree.

    Shapes that the backbone can resize (position embeddings) agree, too.

    Args:
      variables: Flax variables (or their shapes) by collection.
      arrays: by name in the file; ``num_batches_tracked`` is skipped, and a ``module.`` before all
        names (of a network saved in its parallel wrapper) too.
      backbone: the backbone; None where there is none.
      ignore: regular expression of names that may be missing (they keep their value in
        `variables`) or be in excess.
      source: what to call the arrays in messages.
      log: hears what was imported and what was ignored.

    Raises:
      UserError: arrays are missing, in excess, of another shape or not finite; names all of them.
    """
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        known: str | None = name.removeprefix("module.")
        if backbone is not None:
            known = backbone.foreign_name(known)
        if known is not None and not known.endswith("num_batches_tracked"):
            found[known] = array
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
        elif not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
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
    ignored = _listed("kept as initialised", missing) + _listed("left out", unexpected)
    log("; ".join([f"{len(names) - len(missing)} arrays from {source}", *ignored]))
    return traverse_util.unflatten_dict(flat, sep="/")


def import_backbone(
    path: Path,
    backbone: Backbone,
    params: PyTree,
    variables: PyTree,
    log: Callable[[str], None] = lambda _: None,
) -> tuple[PyTree, PyTree]:
    """A network's (params, other variables) with the backbone's weights read from a file.

    Args:
      path: ``.npz`` file. Layers after the backbone are left out.
      backbone: the backbone of the network.
      params: the network's parameters; the backbone's are under ``backbone``.
      variables: the other variables by collection.
      log: hears what was imported.

    Raises:
      UserError: the file does not hold exactly this backbone.
    """
    everything = {"params": params, **variables}
    part = {
        collection: {"backbone": tree["backbone"]}
        for collection, tree in everything.items()
        if "backbone" in tree
    }
    part = import_arrays(
        part, read_arrays(path), backbone=backbone, ignore=HEADS, source=str(path), log=log
    )
    for collection, tree in part.items():
        everything[collection] = {**everything[collection], **tree}
    return everything.pop("params"), everything
