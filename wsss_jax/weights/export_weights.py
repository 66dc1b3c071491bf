"""Writes arrays as ``.safetensors`` or ``.npz``, under our names or those of PyTorch."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from wsss_jax import digests
from wsss_jax.errors import UserError
from wsss_jax.files import DONE, atomic_write, make_again, with_tuples
from wsss_jax.methods.base import Method
from wsss_jax.models.base import Backbone
from wsss_jax.records import read_record
from wsss_jax.weights.checkpoint import read_checkpoint

SUFFIXES = (".safetensors", ".npz")
"""The formats that can be written."""


def trained_stage(workdir: Path, stage: str = "") -> Path:
    """Returns the folder of a finished training stage.

    Args:
      workdir: the folder of a run, or of the stage itself.
      stage: the name of the stage; it can be empty if there is one alone.

    Raises:
      UserError: there is none, or there are several and none is named.
    """
    found = [workdir] if _is_trained(workdir) else []
    if not found and workdir.is_dir():
        found = sorted(one for one in workdir.iterdir() if _is_trained(one))
    names = [one.name for one in found]
    if not found or (stage and stage not in names) or (len(found) > 1 and not stage):
        what = f"the stage {stage}" if stage else "one finished stage"
        raise UserError(
            f"expected {what} with weights.npz in {workdir}, found {', '.join(names) or 'none'}: "
            + ("name one with --stage" if found else "check the path, or finish the run")
        )
    return found[names.index(stage)] if stage else found[0]


def _is_trained(folder: Path) -> bool:
    return (folder / "weights.npz").is_file() and (folder / DONE).is_file()


def read_trained(folder: Path) -> tuple[Backbone, dict[str, np.ndarray]]:
    """Returns the backbone and the arrays, under our names, of a training stage's network.

    Raises:
      UserError: the folder is damaged.
    """
    digests.check(folder, lambda name: name in ("config.json", "weights.npz"))
    path = folder / "config.json"
    description = with_tuples(read_record(path, {"method": dict}, make_again(path))["method"])
    method = Method.from_config(description, "method")
    return method.backbone, read_checkpoint(folder / "weights.npz").arrays


def write_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] = {}
) -> None:
    """Writes arrays by name, atomically, in the format of the suffix.

    Args:
      path: the file.
      arrays: the arrays.
      metadata: what the file says about itself; ``.npz`` has no place for it.

    Raises:
      UserError: the suffix is none of `SUFFIXES`.
    """
    check_suffix(path)
    whole = {name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}
    with atomic_write(path) as file:
        if path.suffix == ".npz":
            np.savez(file, allow_pickle=False, **whole)
        else:
            file.write(save(whole, dict(metadata)))


def check_suffix(path: Path) -> None:
    """Refuses a file that cannot be written.

    Raises:
      UserError: its suffix is none of `SUFFIXES`.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"expected a file that ends in {' or '.join(SUFFIXES)}, found {path}: change the name"
        )
