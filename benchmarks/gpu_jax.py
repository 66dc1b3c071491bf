"""Our side of `gpu`: ``python gpu_jax.py '{"work": "step", ...}'`` on the first device.

Prints what it finds as soon as it has found it, one object of JSON per line.
"""

import dataclasses
import json
import shutil
import statistics
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

from benchmarks import photographs, training, worker
from wsss_jax.accelerators.chips import chip_of
from wsss_jax.accelerators.compiled import ProgramCost
from wsss_jax.data.loader import training_batches
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.files import read_json, with_tuples, write_json
from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.inference.multi_scale import prediction
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import init_variables, variable_shapes
from wsss_jax.ops.sharding import data_mesh, replicated, sharded
from wsss_jax.pipeline import graph, memory
from wsss_jax.pipeline.config import load_config
from wsss_jax.stages.base import Context
from wsss_jax.stages.infer_cam import InferCam
from wsss_jax.stages.train import Train
from wsss_jax.weights.npz import load_weights, save_weights


def set_precision(dtype: str) -> str:
    """The type of convolutions for ``bfloat16``, ``tf32`` or ``float32``, which has no TF32.

    On a GPU, JAX computes products of float32 in TF32 unless it is told not to.
    """
    jax.config.update("jax_default_matmul_precision", "highest" if dtype == "float32" else None)
    return "bfloat16" if dtype == "bfloat16" else "float32"


def ceilings(side: int, megabytes: int) -> None:
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

        seconds = statistics.median(worker.seconds_per_call(call, wait, 0.3))
        worker.emit(**{f"tflops_{dtype}": 2 * side**3 / seconds / 1e12})
    move = jax.jit(lambda x: x + 1, donate_argnums=0)
    held = [jnp.zeros((megabytes * 250_000,), jnp.float32)]

    def copy() -> None:
        held[0] = move(held[0])

    seconds = worker.seconds_per_call(copy, lambda: held[0].block_until_ready(), 0.3)
    worker.emit(gb_per_second=2 * megabytes / 1000 / statistics.median(seconds), **_peak())


def step(recipe: str, dtype: str, batch: int, stage: str, crop: int = 0, turn: float = 1.0) -> None:
    """A recipe's training step: compiling, time, memory, arithmetic and bytes."""
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    options = training.Options(batch, crop, set_precision(dtype), stage)
    worker.emit(tflop=training.flops(recipe, options) / 1e12)
    made = training.prepare(recipe, options, jax.devices()[:1])
    worker.emit(batch=made.batch["image"].shape[0], crop=made.batch["image"].shape[1])
    start = time.perf_counter()
    compiled: Any = made.step.lower(made.state, made.batch).compile()  # pyright: ignore
    worker.emit(compile_seconds=time.perf_counter() - start)
    try:
        worker.emit(program=ProgramCost.of(compiled).to_json())
    except Exception as error:  # what a backend tells of its programs is a gift
        worker.emit(program_unknown=repr(error))
    last: dict[str, Any] = {}
    state = made.state

    def call() -> None:
        nonlocal state
        state, metrics = compiled(state, made.batch)
        last.update(metrics)

    seconds = worker.seconds_per_call(call, lambda: last["loss"].block_until_ready(), turn)
    if not np.isfinite(float(last["loss"])):
        sys.exit(f"{recipe}: expected a finite loss, found {float(last['loss'])}")
    worker.emit(step_seconds=statistics.median(seconds), all_seconds=seconds, **_peak())


def twin(recipe: str) -> None:
    """What PyTorch's side has to know about a recipe's training."""
    worker.emit(twin=training.twin_of(recipe, training.Options()))


def training_input(recipe: str, folder: str, images: int, longest: int) -> None:
    """Images per second that a recipe's first training stage reads, decodes and augments."""
    voc = photographs.devkit(Path(folder), images, longest)
    config = _on_photographs(recipe, Path(folder), voc)
    stage = next(node.stage for node in graph.stages(config) if node.name == "train")
    assert isinstance(stage, Train)
    source = DataSettings.from_config(config.data, "data").open(stage.split)
    size, count = min(stage.batch_size, images), 4 * images
    batches = iter(
        training_batches(
            source,
            batch_size=size,
            augment=stage.augment,
            seed=0,
            steps=count // size,
            process_index=0,
            process_count=1,
            spec=stage.method_for(len(source.classes)).batch_spec(),
            targets={},
            num_threads=stage.num_threads,
            prefetch=stage.prefetch,
        )
    )
    next(batches)  # starts the threads
    start = time.perf_counter()
    read = sum(len(batch["label"]) for batch in batches)
    worker.emit(
        images_per_second=read / (time.perf_counter() - start), num_threads=stage.num_threads
    )


def _on_photographs(recipe: str, folder: Path, voc: Path) -> Any:
    """The recipe for the drawn photographs in `voc`."""
    config: Any = load_config(recipe)
    with config.unlocked():
        config.data = DataSettings.defaults(
            "voc2012", root=str(voc), labels="masks", data_dir=str(folder / "data")
        )
        config.protocol = "present"  # networks that have not trained leave classes out
    return config


def stages(
    recipe: str, dtype: str, folder: str, images: int, longest: int, names: list[str]
) -> None:
    """Seconds of a recipe's stages `names` on drawn photographs, and of its network alone.

    Each stage runs twice: the first time it compiles, and the second time it finds its programs in
    JAX's cache. Networks have random weights. Needed stages must be in `folder` already, except for
    those that train.
    """
    here, precision = Path(folder), set_precision(dtype)
    voc = photographs.devkit(here, images, longest)
    config = _on_photographs(recipe, here, voc)
    nodes = graph.stages(config)
    needed = {need for node in nodes if node.name in names for need in node.needs.values()}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        for node in nodes:
            if isinstance(node.stage, Train) and node.name in needed:
                _untrained(node, node.stage, here / node.name, precision)
            elif node.name in names:
                found[node.name] = _twice(node, Context(config, here, node.name, here / node.name))
                worker.emit(images=images, stages=found, **_peak())
    for node in nodes:
        if isinstance(node.stage, InferCam) and node.name in names:
            rate = _network_rate(node.stage, here / node.needs["checkpoint"], longest)
            worker.emit(network_images_per_second=rate)
            return


def _untrained(node: graph.Node, stage: Train, folder: Path, precision: str) -> None:
    """Makes the folder of a training stage that has not trained, unless it is there."""
    if (folder / "config.json").is_file():
        return
    method = stage.method_for(training.NUM_CLASSES)
    save_weights(folder / "weights.npz", *init_variables(method, 0))
    section = node.section
    section["method"]["dtype"] = precision
    write_json(folder / "config.json", section)


def _twice(node: graph.Node, context: Context) -> list[float]:
    inputs = {name: context.workdir / upstream for name, upstream in node.needs.items()}
    seconds = []
    for _ in range(2):
        shutil.rmtree(context.stage_dir, ignore_errors=True)
        context.stage_dir.mkdir()
        start = time.perf_counter()
        metrics = node.stage.run(context, inputs)
        seconds.append(time.perf_counter() - start)
        write_json(context.stage_dir / "metrics.json", metrics)
    return seconds


def _network_rate(how: InferCam, checkpoint: Path, longest: int) -> float:
    """Images per second of the network over all scales and flips, with arrays on the device."""
    method = Method.from_config(
        with_tuples(read_json(checkpoint / "config.json")["method"]),
        "method",
        num_classes=training.NUM_CLASSES,
    )
    params, variables = load_weights(checkpoint / "weights.npz", *variable_shapes(method))
    mesh = data_mesh(jax.devices()[:1])
    predict = prediction(method, how.output, mesh)
    weights = jax.device_put({"params": params, **variables}, replicated(mesh))
    count, total = 32, 0.0
    plan = how.plan([(round(longest * 0.75), longest)] * count, method.backbone)
    batch = plan.batches(range(count))[0]
    for height, width in batch.bucket:
        shape = (batch.rows * how.copies, height, width)
        images = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        placed = jax.device_put((images, np.ones(shape, bool)), sharded(mesh))
        last: list[Any] = []

        def call(placed=placed, last=last) -> None:
            last[:] = [predict(weights, *placed)]

        def wait(last=last) -> None:
            last[0].block_until_ready()

        seconds = worker.seconds_per_call(call, wait, 0.3)
        total += statistics.median(seconds) / len(batch.positions)
    return 1 / total


def _peak() -> dict[str, Any]:
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


WORKS = {work.__name__: work for work in (ceilings, step, twin, training_input, stages)}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    WORKS[arguments.pop("work")](**arguments)
