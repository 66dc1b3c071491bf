"""Training steps of a recipe by the project's own trainer, on command: one side of `train_step`.

``python jax_worker.py FOLDER`` reads ``spec.json`` and ``batch.npz``. With ``--export`` it only
writes what the other side starts from, under PyTorch's names: ``weights.npz``, ``rules.json``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from worker import Step, keep_memory, serve  # pyright: ignore[reportMissingImports]

from wsss_jax.methods import build_method
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import init_variables
from wsss_jax.models import backbone_module
from wsss_jax.ops.sharding import data_mesh, global_batch
from wsss_jax.training.loop import init_state, make_train_step
from wsss_jax.training.optimizer import assign_rules, make_optimizer
from wsss_jax.weights.import_weights import torch_names

_STEPS = 1000  # length of the schedule; a benchmark sees its beginning


def build(spec: dict[str, Any]) -> tuple[Method, Any, Any]:
    """The method of `spec`, its parameters and its other variables."""
    method = build_method(spec["method"], spec["num_classes"])
    return method, *init_variables(method, seed=0, crop=64)


def export(folder: Path, spec: dict[str, Any]) -> None:
    """Writes what the other side needs in order to start from the same state."""
    method, params, variables = build(spec)
    everything = {"params": params, **variables}
    names = torch_names(everything, backbone_module(spec["method"]["backbone"]["name"]))
    arrays = {}
    for path, value in traverse_util.flatten_dict(everything, sep="/").items():
        array = np.asarray(value)
        arrays[names[path]] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    np.savez(folder / "weights.npz", **arrays)
    rules = {
        names[f"params/{path}"]: {"lr": rule.lr, "decay": rule.decay, "frozen": rule.frozen}
        for path, rule in assign_rules(params, method.param_rules()).items()
    }
    (folder / "rules.json").write_text(json.dumps(rules))


def prepare(folder: Path, spec: dict[str, Any]) -> Step:
    """A function that does one step and returns its loss."""
    if spec["keep_memory"]:
        keep_memory()
    method, params, variables = build(spec)
    mesh = data_mesh(jax.devices()[:1])
    rules = assign_rules(params, method.param_rules())
    optimizer = make_optimizer(spec["optimizer"], rules, _STEPS)
    state = init_state(method, optimizer, params, variables, 0, mesh)
    step_fn = make_train_step(method, optimizer, params, mesh)
    with np.load(folder / "batch.npz") as file:
        batch = global_batch(dict(file), mesh)

    def step() -> float:
        nonlocal state
        state, metrics = step_fn(state, batch)
        jax.block_until_ready(state.params)
        return float(metrics["loss"])

    return step


if __name__ == "__main__":
    where = Path(sys.argv[1])
    if "--export" in sys.argv:
        export(where, json.loads((where / "spec.json").read_text()))
    else:
        serve(where, prepare, {"jax": jax.__version__})
