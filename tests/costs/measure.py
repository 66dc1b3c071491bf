"""Measures what programs cost each of four devices, and prints it as JSON.

`tests.costs.record` runs it in a process of its own, with ``cpu`` or ``tpu`` and the names of
methods, by default of all. TPUs need not be at
hand, because their programs are only compiled.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from tests.costs.record import DEVICES
from tests.reference.drawn_networks import SETTINGS, TEN, Trained, context
from tests.toys import light_methods, toy_training
from tests.toys.host_reads import host_reads
from tests.toys.sections import run_section
from wsss_jax.accelerators.compiled import ProgramCost
from wsss_jax.accelerators.topology import topology_devices, without_devices
from wsss_jax.methods.prediction import prediction
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.ops.sharding import data_mesh
from wsss_jax.stages.infer_cam import InferCam
from wsss_jax.training import loop
from wsss_jax.training.compilations import compilations
from wsss_jax.training.optimizer import OptimizerSettings
from wsss_jax.training.step import lower_train_step

TOPOLOGY = "v5e:2x2"
BATCH = 8
MOMENTUM = OptimizerSettings(lr=0.1, momentum=0.9, weight_decay=1e-4)

Figures = dict[str, dict[str, float]]
"""Figures by name, for programs and runs by name."""


def programs(devices: list[Any], dtype: str, methods: list[str]) -> Figures:
    """The costs of the training step and the first prediction of methods."""
    mesh = data_mesh(devices)
    found: Figures = {}
    assert mesh.devices.size == DEVICES
    for name in methods:
        method = light_methods.make(name, dtype=dtype)
        batch = method.batch_spec().shapes(BATCH, light_methods.CROP, light_methods.CLASSES)
        params, variables = variable_shapes(method)
        images = {"params": params, **variables}, batch["image"], batch["valid"]
        if not method.made_by:
            found[f"{name}, training step"] = cost(lower_train_step(method, MOMENTUM, batch, mesh))
        output = method.outputs[0]
        found[f"{name}, {output}"] = cost(prediction(method, output, mesh).lower(*images))
    return found


def cost(lowered: jax.stages.Lowered) -> dict[str, float]:
    """FLOPs, bytes and collectives, and the number of donated arrays whose memory is not reused."""
    compiled = lowered.compile()
    total = ProgramCost.of(compiled)
    found: dict[str, float] = {"flops": round(total.flops), "bytes": round(total.bytes_accessed)}
    for one in total.collectives:
        found |= {one.kind: one.count, f"{one.kind} bytes": one.bytes}
    donated = sum(one.donated for one in jax.tree.leaves(lowered.args_info))
    if donated:
        header = str(compiled.as_text()).partition("\n")[0]
        found["donated, not reused"] = donated - header.count("-alias)")
    return found


class Waits:
    """What the host reads while a training goes on, and whether it waits for steps."""

    def __init__(self) -> None:
        self.steps: list[list[jax.Array]] = []  # kept alive, so that arrays have an identity
        self.found = {"figures read": 0, "maps read": 0, "other arrays read": 0, "waits": 0}

    def read(self, array: jax.Array) -> None:
        """Counts an array that is read."""
        step = next((i for i, own in enumerate(self.steps) if any(array is a for a in own)), None)
        if step is not None:
            self.found["figures read"] += 1
            # The devices must have other steps to do meanwhile.
            self.found["waits"] += len(self.steps) - 1 - step < loop.STEPS_AHEAD
        else:
            self.found["maps read" if array.ndim == 4 else "other arrays read"] += 1

    @contextmanager
    def dispatched(self) -> Iterator[None]:
        """Notes the figures of all steps."""
        make = loop.make_train_step

        def watched(*arguments: Any) -> Any:
            step_fn = make(*arguments)

            def step(state: Any, batch: Any) -> Any:
                state, metrics = step_fn(state, batch)
                self.steps.append(list(metrics.values()))
                return state, metrics

            return step

        loop.make_train_step = watched
        try:
            yield
        finally:
            loop.make_train_step = make


def training(folder: Path) -> Figures:
    """A training of 12 steps with pictures at four of them, twice: the second is from the cache."""
    waits, steps, found = Waits(), 12, {}
    during: dict[str, float] = {}

    def until_the_last_step() -> None:
        during.update(waits.found)

    for name in ("toy training", "toy training from the cache"):
        jax.clear_caches()
        with waits.dispatched(), host_reads(waits.read):
            _, figures = toy_training.train(
                folder / name,
                steps,
                toy_training.tiny_cam(),
                image_every=3,
                checkpoint_every=steps,
                at={steps - 1: until_the_last_step},
            )
        found[name] = {
            "compiled": figures["compilations"],
            "from the cache": figures["compilations_from_cache"],
            **during,
        }
        waits = Waits()
    return found


def inference(folder: Path) -> Figures:
    """The stage that makes activation maps, for ten images of all sizes."""
    reads: list[jax.Array] = []
    Trained(folder, "cam", "tiny")
    jax.clear_caches()
    with compilations() as compiled, host_reads(reads.append):
        run_section(InferCam, context(folder / "cams", TEN), SETTINGS, {"checkpoint": folder})
    read = {"arrays read": len(reads), "bytes read": sum(one.nbytes for one in reads)}
    return {"toy inference": {"compiled": compiled.compiled, **read}}


def main() -> None:
    target, *methods = sys.argv[1:]
    methods = methods or light_methods.names()
    if target == "tpu":
        without_devices()
        found = programs(topology_devices(TOPOLOGY), "bfloat16", methods)
    else:
        found = programs(jax.devices(), "float32", methods)
        with tempfile.TemporaryDirectory() as name:
            cache = Path(name) / "cache"
            jax.config.update("jax_compilation_cache_dir", str(cache))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
            found |= training(Path(name)) | inference(Path(name))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
