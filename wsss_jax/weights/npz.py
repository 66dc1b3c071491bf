"""Saves and loads the weights of a network as one ``.npz`` with a float32 array per variable."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from wsss_jax.data.formats.npz import open_arrays
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, make_again
from wsss_jax.models.base import Backbone


def save_weights(path: Path, params: PyTree, variables: PyTree) -> None:
    """Writes parameters and other variables (``params/…``, ``batch_stats/…``) atomically."""
    flat = traverse_util.flatten_dict({"params": params, **variables}, sep="/")
    host = jax.device_get(flat)
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **{name: np.asarray(v) for name, v in host.items()})


def load_weights(
    path: Path,
    params: PyTree,
    variables: PyTree,
    part: str = "",
    backbone: Backbone | None = None,
    may_lack: tuple[str, ...] = (),
) -> tuple[PyTree, PyTree]:
    """Reads the (parameters, variables) of a file, whose entries must be those of the given trees.

    Args:
      path: the file.
      params: the parameters of the network.
      variables: its other variables.
      part: the name of a submodule; if it is given, only its arrays are read and replaced.
      backbone: the network's backbone, which resizes position embeddings of another grid. If it is
        None, no array is resized.
      may_lack: the names of submodules that keep the given values if the file has none of their
        arrays.

    Raises:
      UserError: there is no such file, it is damaged or belongs to another network, or a weight is
        NaN or infinite.
    """
    everything = traverse_util.flatten_dict({"params": params, **variables}, sep="/")
    want: dict[str, Any] = {n: v for n, v in everything.items() if _belongs(n, part)}
    try:
        with open_arrays(path) as file:
            have = {name: file[name] for name in file if _belongs(name, part)}
    except FileNotFoundError as error:
        raise UserError(f"expected weights in {path}, found no such file: train first") from error
    except (KeyError, ValueError) as error:
        raise UserError(
            f"expected weights (.npz) in {path}, found a damaged file ({error}): train again"
        ) from error
    broken = [name for name, array in have.items() if not _is_finite(array)]
    if broken:
        raise UserError(
            f"expected finite weights in {path}, found NaN or infinity in {min(broken)}:"
            f" {make_again(path)}"
        )
    want = without_lacked(want, have, may_lack)
    have, wrong = matched(have, want, backbone)
    wrong += [name for name in want if name not in wrong and _differs(have[name], want[name])]
    if wrong:
        raise UserError(
            f"expected the weights of this {part or 'network'} in {path}, found those of another"
            f" one ({len(wrong)} entries differ, such as {min(wrong)}): use the file of this one"
        )
    tree = traverse_util.unflatten_dict({**everything, **have}, sep="/")
    loaded = tree.pop("params")
    return loaded, {**variables, **tree}


def without_lacked(
    want: Mapping[str, Any], have: Iterable[str], may_lack: tuple[str, ...]
) -> dict[str, Any]:
    """Returns `want` without those of the submodules `may_lack` of which `have` names no array."""
    found = {name.split("/")[1] for name in have if "/" in name}
    lacked = set(may_lack) - found
    return {name: value for name, value in want.items() if name.split("/")[1] not in lacked}


def matched(
    have: Mapping[str, np.ndarray], want: Mapping[str, Any], backbone: Backbone | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Resizes the arrays of a file where the backbone can, and lists what still does not fit.

    Args:
      have: the arrays by name, such as ``params/backbone/conv1/kernel``.
      want: what has the shapes of the network's variables, by the same names.
      backbone: the network's backbone, or None to resize no array.

    Returns:
      The arrays, and the names that only one of the two has or whose shapes differ.
    """
    resized = dict(have)
    if backbone is not None:
        for name in have.keys() & want.keys():
            resized[name] = _resized(backbone, name, have[name], want[name])
    wrong = [
        name
        for name in want.keys() | resized.keys()
        if name not in resized or name not in want or want[name].shape != resized[name].shape
    ]
    return resized, wrong


def _resized(backbone: Backbone, name: str, array: np.ndarray, like: Any) -> np.ndarray:
    """Resizes `array` to the shape of `like` if the backbone can."""
    collection, module, *rest = name.split("/")
    if module != "backbone" or array.shape == like.shape or array.dtype.kind != "f":
        return array
    return backbone.resize_param((collection, *rest), array, tuple(like.shape))


def _differs(array: np.ndarray, like: Any) -> bool:
    """Returns whether an array has numbers of another kind, such as whole ones for fractions."""
    return array.dtype.kind != np.dtype(like.dtype).kind


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _belongs(name: str, part: str) -> bool:
    # Names have the form collection/module/…/leaf.
    return not part or name.split("/")[1:2] == [part]
