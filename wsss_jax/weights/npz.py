"""Weights of a network as one portable ``.npz``: a float32 array per variable, by path."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write
from wsss_jax.models.base import Backbone


def save_weights(path: Path, params: PyTree, variables: PyTree) -> None:
    """Writes parameters and other variables (``params/…``, ``batch_stats/…``), atomically."""
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
) -> tuple[PyTree, PyTree]:
    """The (parameters, variables) of a file, which must be exactly those of the given trees.

    Args:
      path: the file.
      params: parameters of the network.
      variables: its other variables.
      part: a submodule's name; only its arrays are read and replaced, all others stay.
      backbone: the network's; position embeddings of another grid are resized by it. None: no
        array is resized.

    Raises:
      UserError: no such file, not readable, or of another network.
    """
    everything = traverse_util.flatten_dict({"params": params, **variables}, sep="/")
    want: dict[str, Any] = {n: v for n, v in everything.items() if _belongs(n, part)}
    try:
        # NumPy leaves a file that it opened itself open when the archive turns out damaged.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            have = {name: file[name] for name in file.files if _belongs(name, part)}
    except FileNotFoundError as error:
        raise UserError(f"expected weights in {path}, found no such file: train first") from error
    except Exception as error:  # NumPy, zipfile and zlib each have their own
        raise UserError(
            f"expected weights (.npz) in {path}, found a damaged file ({error}): train anew"
        ) from error
    if backbone is not None:
        have = {n: _resized(backbone, n, v, want[n]) if n in want else v for n, v in have.items()}
    wrong = [
        name
        for name in want.keys() | have.keys()
        if name not in have or name not in want or want[name].shape != have[name].shape
    ]
    if wrong:
        raise UserError(
            f"expected weights of this {part or 'network'} in {path}, found another one's:"
            f" {len(wrong)} entries differ, such as {min(wrong)}"
        )
    tree = traverse_util.unflatten_dict({**everything, **have}, sep="/")
    loaded = tree.pop("params")
    return loaded, {**variables, **tree}


def _resized(backbone: Backbone, name: str, array: np.ndarray, like: Any) -> np.ndarray:
    """`array` in the shape of `like`, where the backbone knows how."""
    collection, module, *rest = name.split("/")
    if module != "backbone" or array.shape == like.shape or array.dtype.kind != "f":
        return array
    return backbone.resize_param((collection, *rest), array, tuple(like.shape))


def _belongs(name: str, part: str) -> bool:
    # Names are collection/module/…/leaf.
    return not part or name.split("/")[1] == part
