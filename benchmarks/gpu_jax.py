"""Our side of `gpu`: ``python gpu_jax.py '{"work": "step", ...}'`` on the first device.

Prints what it finds as soon as it has found it, one object of JSON per line.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import gpu_profile, training, worker
from wsss_jax.accelerators.chips import chip_of
from wsss_jax.accelerators.compiled import ProgramCost
from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.pipeline import memory
from wsss_jax.training.compilations import compilations


def set_precision(dtype: str) -> str:
    """The type of convolutions for ``bfloat16``, ``tf32`` or ``float32``, which has no TF32.

    On a GPU, JAX computes products of float32 in TF32 unless it is told not to.
    """
    jax.config.update("jax_default_matmul_precision", "highest" if dtype == "float32" else None)
    return "bfloat16" if dtype == "bfloat16" else "float32"


def ceilings(side: int, megabytes: int, turn: float) -> None:
    """TFLOP/s of a square product of normal random numbers, and GB/s of reading and writing."""
    key = jax.random.key(0)
    for dtype in ("bfloat16", "tf32", "float32"):
        kind = jnp.dtype(set_precision(dtype))
        left, right = (jax.random.normal(k, (side, side), kind) for k in jax.random.split(key))
        product = jax.jit(jnp.matmul)
        last = [product(left, right)]

        def call(product=product, left=left, right=right, last=last) -> None:
            last[0] = product(left, right)

        def wait(last=last) -> None:
            last[0].block_until_ready()

        seconds = statistics.median(worker.seconds_per_call(call, wait, turn))
        worker.emit(**{f"tflops_{dtype}": 2 * side**3 / seconds / 1e12})
    move = jax.jit(lambda x: x + 1, donate_argnums=0)
    held = [jnp.zeros((megabytes * 250_000,), jnp.float32)]

    def copy() -> None:
        held[0] = move(held[0])

    seconds = worker.seconds_per_call(copy, lambda: held[0].block_until_ready(), turn)
    worker.emit(gb_per_second=2 * megabytes / 1000 / statistics.median(seconds), **peak())


def step(
    recipe: str,
    dtype: str,
    batch: int,
    stage: str,
    folder: str,
    turn: float,
    crop: int = 0,
    traced: int = 0,
) -> None:
    """A recipe's training step: compiling, time, memory, arithmetic and bytes.

    At last, as many steps as `traced` says are traced, to tell where their time goes.

    JAX's cache in `folder` saves compiling what draws the weights of the same network, and all of
    it to a second try.
    """
    jax.config.update("jax_compilation_cache_dir", f"{folder}/xla")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    options = training.Options(batch, crop, set_precision(dtype), stage)
    asked = {"recipe": recipe, "options": dataclasses.asdict(options)}
    counting = None
    if jax.default_backend() == "cpu":
        keep_freed_memory()
        arithmetic(**asked)
    else:  # counted on a CPU meanwhile, where counting is known to work
        counting = subprocess.Popen(
            [sys.executable, __file__, json.dumps({"work": "arithmetic", **asked})],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
    made = training.prepare(recipe, options, jax.devices()[:1])
    worker.emit(batch=made.batch["image"].shape[0], crop=made.batch["image"].shape[1])
    start = time.perf_counter()
    with compilations() as count:
        compiled: Any = made.step.lower(made.state, made.batch).compile()  # pyright: ignore
    known = "from_cache_seconds" if count.from_cache else "compile_seconds"
    worker.emit(**{known: time.perf_counter() - start})
    try:
        worker.emit(program=ProgramCost.of(compiled).to_json())
    except Exception as error:  # what a backend tells of its programs is a gift
        worker.emit(program_unknown=repr(error))
    if counting:
        counting.wait()
    last: dict[str, Any] = {}
    state = made.state

    def call() -> None:
        nonlocal state
        state, metrics = compiled(state, made.batch)
        last.update(metrics)

    seconds = worker.seconds_per_call(call, lambda: last["loss"].block_until_ready(), turn)
    if not np.isfinite(float(last["loss"])):
        sys.exit(f"{recipe}: expected a finite loss, found {float(last['loss'])}")
    worker.emit(step_seconds=statistics.median(seconds), all_seconds=seconds, **peak())
    if traced:
        with tempfile.TemporaryDirectory() as trace:
            with jax.profiler.trace(trace):
                for _ in range(traced):
                    call()
                last["loss"].block_until_ready()
            found = gpu_profile.spans(Path(trace))
        worker.emit(profile=gpu_profile.summary(found, traced, compiled.as_text()))


def arithmetic(recipe: str, options: dict[str, Any]) -> None:
    """The work of a step; see `training.flops`."""
    worker.emit(tflop=training.flops(recipe, training.Options(**options)) / 1e12)


def twin(recipe: str) -> None:
    """What PyTorch's side has to know about a recipe's training."""
    worker.emit(twin=training.twin_of(recipe, training.Options()))


def peak() -> dict[str, Any]:
    """The device, its memory and the most that was in use; on a CPU, this process's."""
    device = jax.devices()[0]
    stats, peak = device.memory_stats() or {}, memory.peak()
    chip = chip_of(device.device_kind)
    return {
        "device": device.device_kind,
        "data_sheet": dataclasses.asdict(chip) if chip else None,
        "device_gib": stats["bytes_limit"] / 2**30 if "bytes_limit" in stats else None,
        "peak_gib": (peak["device"] or peak["process"] or 0) / 2**30,
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")},
    }


WORKS = {work.__name__: work for work in (ceilings, step, arithmetic, twin)}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    WORKS[arguments.pop("work")](**arguments)
