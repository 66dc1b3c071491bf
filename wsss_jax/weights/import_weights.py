"""Imports the weights of other programs from checkpoints, mostly with PyTorch's names.

Names follow from the paths of our variables: ``backbone/b4_1/conv_branch2a/kernel`` is
``b4_1.conv_branch2a.weight``. A backbone states other names or layouts in files with
`Backbone.import_name` and `Backbone.import_layout`, and names under which its weights are also
published with `Backbone.foreign_arrays`. It resizes position embeddings of another grid with
`Backbone.resize_param`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from wsss_jax.errors import UserError
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.models.base import Backbone
from wsss_jax.models.torch_names import from_torch_layout
from wsss_jax.weights.checkpoint import HEADS, Checkpoint, read_checkpoint, without_prefixes
from wsss_jax.weights.names import Variables, foreign_arrays, inside_backbone, torch_names
from wsss_jax.weights.stated import other_settings, refuse


@dataclass(frozen=True)
class Comparison:
    """What the arrays of a file are to a network.

    Attributes:
      values: the arrays that fit, in our layout, by the paths of the network's variables.
      resized: the names of those whose shape the backbone changes.
      missing: the names of the network's variables that the file lacks.
      unexpected: the names that only the file has.
      unfit: arrays that have another shape or are not finite numbers, each with the reason.
    """

    values: dict[str, np.ndarray]
    resized: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    unfit: tuple[str, ...]


def _as_variable(
    path: str, array: np.ndarray, shape: tuple[int, ...], backbone: Backbone | None
) -> np.ndarray:
    """Converts an array of a file to float32, our layout and, if the backbone can, to `shape`."""
    if _is_floating(array):
        with np.errstate(over="ignore"):  # Infinite numbers are refused.
            array = array.astype(np.float32, copy=False)
    inside = inside_backbone(tuple(path.split("/")))
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


def _one_class(expected: tuple[int, ...], found: tuple[int, ...]) -> str:
    """Returns a remark if a classifier has a class more or less than expected."""
    if expected[:-1] != found[:-1] or abs(expected[-1] - found[-1]) != 1:
        return ""
    theirs, ours = ("with", "without") if found[-1] > expected[-1] else ("without", "with")
    return (
        f": {found[-1]} classes {theirs} the background, where the classifier of this method has"
        f" {expected[-1]} {ours} it"
    )


def plain_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes ``module.``, a network's prefix in its parallel wrapper, and counters of batches.

    Raises:
      UserError: a name is there with and without the prefix.
    """
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        plain = name.removeprefix("module.")
        if plain in found:
            raise UserError(
                f"expected one array {plain}, found it with and without the prefix module.: take"
                " those that have it, FILE,part=module"
            )
        if not name.endswith("num_batches_tracked"):
            found[plain] = array
    return found


def compare_arrays(
    variables: Variables, arrays: Mapping[str, np.ndarray], backbone: Backbone | None = None
) -> Comparison:
    """Compares the arrays of a file with the variables of a network.

    Args:
      variables: Flax variables (or their shapes) by collection.
      arrays: arrays by their name in the file, of any program or of ours. ``num_batches_tracked``
        is skipped, and so is a prefix ``module.``; see `plain_names`.
      backbone: the backbone, or None if there is none.

    Raises:
      UserError: two arrays have the same name, or the backbone refuses names of other settings.
    """
    found = foreign_arrays(plain_names(arrays), variables, backbone)
    flat: dict[str, Any] = traverse_util.flatten_dict(variables, sep="/")
    names = torch_names(variables, backbone)
    values: dict[str, np.ndarray] = {}
    unfit: list[str] = []
    resized: list[str] = []
    for path, name in names.items():
        if name not in found:
            continue
        expected = tuple(flat[path].shape)
        array = _as_variable(path, found[name], expected, backbone)
        if array.shape != expected:
            told = f"expected {expected}, found {array.shape} in our layout"
            unfit.append(f"{name} ({told}{_one_class(expected, array.shape)})")
        elif not _is_floating(array) or not np.isfinite(array).all():
            unfit.append(f"{name} (expected finite numbers)")
        else:
            values[path] = array
            if array.size != found[name].size:
                resized.append(name)
    return Comparison(
        values,
        tuple(sorted(resized)),
        tuple(sorted(set(names.values()) - set(found))),
        tuple(sorted(set(found) - set(names.values()))),
        tuple(sorted(unfit)),
    )


def import_arrays(
    variables: Variables,
    arrays: Mapping[str, np.ndarray],
    *,
    backbone: Backbone | None = None,
    ignore: str = r"(?!)",
    source: str = "the weights",
    log: Callable[[str], None] = lambda _: None,
    record: Callable[[Comparison], None] = lambda _: None,
) -> Variables:
    """Returns `variables` with the values of `arrays` in float32; names and shapes must agree.

    Shapes that the backbone can resize (position embeddings) count as equal.

    Args:
      variables: Flax variables (or their shapes) by collection.
      arrays: arrays by their name in the file; see `compare_arrays`.
      backbone: the backbone, or None if there is none.
      ignore: a regular expression for names of `arrays` that are left out if the network does not
        have them. Nothing may be missing.
      source: the name of the arrays in messages.
      log: a function that is told what was imported and what was ignored.
      record: a function that gets the comparison of the arrays with the network.

    Raises:
      UserError: arrays are missing, unexpected, of another shape or not finite; the first ones are
        named.
    """
    compared = _fitting(variables, arrays, backbone, ignore, source)
    flat: dict[str, Any] = dict(traverse_util.flatten_dict(variables, sep="/"))
    for path, array in compared.values.items():
        flat[path] = jnp.asarray(array, jnp.float32)
    notes = _listed("resized", compared.resized) + _listed("left out", compared.unexpected)
    log("; ".join([f"{len(compared.values)} arrays from {source}", *notes]))
    record(compared)
    return traverse_util.unflatten_dict(flat, sep="/")


def _fitting(
    variables: Variables,
    arrays: Mapping[str, np.ndarray],
    backbone: Backbone | None,
    ignore: str,
    source: str,
) -> Comparison:
    """Returns the comparison of arrays that fit a network; see `import_arrays`."""
    compared = compare_arrays(variables, arrays, backbone)
    problems = (
        _listed("missing", compared.missing)
        + _listed("unexpected", [n for n in compared.unexpected if not re.fullmatch(ignore, n)])
        + _listed("that do not fit", compared.unfit)
    )
    if problems:
        count = len(traverse_util.flatten_dict(variables))
        raise UserError(
            f"expected the {count} arrays of this network in {source}, found"
            f" {'; '.join(problems)}: {_advice(variables, arrays, backbone, compared)}"
        )
    return compared


def _advice(
    variables: Variables,
    arrays: Mapping[str, np.ndarray],
    backbone: Backbone | None,
    compared: Comparison,
) -> str:
    """Returns what to do about a file that does not fit a network."""
    parts = {name.partition(".")[0] for name in arrays if "." in name and not compared.values}
    for part in sorted(parts):
        inside, _ = without_prefixes(arrays, [part])
        if len(compare_arrays(variables, inside, backbone).values) > len(compared.missing) / 2:
            return f"take one of its networks, FILE,part={part}"
    also = ", or settings that `python -m wsss_jax.weights inspect` finds for this one"
    return "use the file of this network" + (also if backbone else "")


def check_backbone(path: Path, method: Method, part: str = "") -> None:
    """Refuses a file that does not hold exactly the weights of a method's backbone.

    Raises:
      UserError: for the same reasons as `import_backbone`.
    """
    checkpoint = _read(path, method.backbone, part)
    params, variables = variable_shapes(method)
    mine = _backbone_of({"params": params, **variables})
    _fitting(mine, checkpoint.arrays, method.backbone, HEADS, _source(checkpoint))


def check_network(path: Path, method: Method, part: str = "") -> None:
    """Refuses a file that does not hold exactly the variables of a method's network.

    Raises:
      UserError: for the same reasons as `import_network`.
    """
    checkpoint = _read(path, method.backbone, part)
    params, variables = variable_shapes(method)
    arrays = method.foreign_arrays(checkpoint.arrays)
    everything = {"params": params, **variables}
    _fitting(everything, arrays, method.backbone, r"(?!)", _source(checkpoint))


def _backbone_of(everything: Mapping[str, Any]) -> Variables:
    """Returns the backbone's variables of a network."""
    return {
        collection: {"backbone": tree["backbone"]}
        for collection, tree in everything.items()
        if "backbone" in tree
    }


def import_backbone(
    path: Path,
    backbone: Backbone,
    params: PyTree,
    variables: PyTree,
    log: Callable[[str], None] = lambda _: None,
    record: Callable[[dict[str, Any]], None] = lambda _: None,
    part: str = "",
) -> tuple[PyTree, PyTree]:
    """Returns a network's (params, other variables) with the backbone's weights from a file.

    Args:
      path: a checkpoint, whose layers after the backbone are left out.
      backbone: the backbone of the network.
      params: the network's parameters; the backbone's are under ``backbone``.
      variables: the other variables by collection.
      log: a function that is told what was imported.
      record: a function that gets the same for the results: ``file``, ``format``, ``sha256``,
        ``notes`` on what was unwrapped, the number of arrays that ``matched``, and the names of
        those that were ``resized``, or ``unexpected`` and left out.
      part: which of several networks in the file to take; see `read_checkpoint`.

    Raises:
      UserError: the file does not hold exactly the weights of this backbone.
    """
    checkpoint = _read(path, backbone, part)
    everything = {"params": params, **variables}
    mine = import_arrays(
        _backbone_of(everything),
        checkpoint.arrays,
        backbone=backbone,
        ignore=HEADS,
        source=_source(checkpoint),
        log=log,
        record=lambda found: record(_recorded(checkpoint, found)),
    )
    for collection, tree in mine.items():
        everything[collection] = {**everything[collection], **tree}
    return everything.pop("params"), everything


def import_network(
    path: Path,
    method: Method,
    log: Callable[[str], None] = lambda _: None,
    record: Callable[[dict[str, Any]], None] = lambda _: None,
    part: str = "",
) -> tuple[PyTree, PyTree]:
    """Returns the (parameters, other variables) of a method's whole network from a file.

    Args:
      path: a checkpoint of a network that was trained with this method, by this program or by the
        authors', whose names `Method.foreign_arrays` and `Backbone.foreign_arrays` know.
      method: the method for the classes of the network.
      log, record, part: as in `import_backbone`.

    Raises:
      UserError: the file does not hold exactly the variables of this network.
    """
    checkpoint = _read(path, method.backbone, part)
    params, variables = variable_shapes(method)
    found = import_arrays(
        {"params": params, **variables},
        method.foreign_arrays(checkpoint.arrays),
        backbone=method.backbone,
        source=_source(checkpoint),
        log=log,
        record=lambda found: record(_recorded(checkpoint, found)),
    )
    return found.pop("params"), found


def _read(path: Path, backbone: Backbone, part: str) -> Checkpoint:
    """Reads a checkpoint, which must not state other settings than the backbone's."""
    checkpoint = read_checkpoint(path, part=part)
    refuse(other_settings(checkpoint, backbone), backbone, checkpoint.path)
    return checkpoint


def _source(checkpoint: Checkpoint) -> str:
    """Returns what messages say about a file."""
    about = [checkpoint.format, *checkpoint.notes, f"sha256 {checkpoint.sha256[:16]}"]
    return f"{checkpoint.path} ({', '.join(about)})"


def _recorded(checkpoint: Checkpoint, found: Comparison) -> dict[str, Any]:
    """Returns what results say about a file; see `import_backbone`."""
    return {
        "file": checkpoint.path.name,
        "format": checkpoint.format,
        "sha256": checkpoint.sha256,
        "notes": list(checkpoint.notes),
        "matched": len(found.values),
        "resized": list(found.resized),
        "unexpected": list(found.unexpected),
    }
