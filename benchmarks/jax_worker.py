"""Training steps of a recipe by the project's own trainer: one side of `train_step`.

``python jax_worker.py FOLDER`` reads ``spec.json``, which `train_step` writes. Before the first
step it leaves what the other side starts from: ``weights.npz`` under PyTorch's names, ``batch.npz``
and ``twin.json``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from benchmarks import training, worker
from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.weights.import_weights import torch_names


def export(folder: Path, made: Any, options: Any) -> None:
    """Writes the state before the first step, and what is trained how.

    ``twin.json`` is what `training.twin` says, and whether the convolutions have half precision.
    """
    export_weights(folder, made.method, {"params": made.params, **made.variables})
    np.savez(folder / "batch.npz", **jax.device_get(made.batch))
    twin = training.twin(made.method, made.optimizer, made.params, made.variables)
    twin["half"] = options.dtype == "bfloat16"
    (folder / "twin.json").write_text(json.dumps(twin))


def export_weights(folder: Path, method: Any, everything: Any) -> None:
    """Writes ``weights.npz`` in PyTorch's names and layout."""
    names = torch_names(everything, method.backbone)
    arrays = {}
    for path, value in traverse_util.flatten_dict(everything, sep="/").items():
        array = np.asarray(value)
        arrays[names[path]] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    np.savez(folder / "weights.npz", **arrays)


def main() -> None:
    folder = Path(sys.argv[1])
    spec = json.loads((folder / "spec.json").read_text())
    if spec["keep_memory"]:
        keep_freed_memory()
    options = training.Options(**spec["options"])
    made = training.prepare(spec["recipe"], options, jax.devices()[:1])
    export(folder, made, options)
    state = made.state

    def step() -> float:
        nonlocal state
        state, metrics = made.step(state, made.batch)
        jax.block_until_ready(state.params)
        return float(metrics["loss"])

    worker.serve_steps(step)


if __name__ == "__main__":
    main()
