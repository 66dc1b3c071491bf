"""Stages of a recipe on drawn photographs: ``python gpu_stages.py '{"work": "stages", ...}'``.

Prints what it finds as soon as it has found it, one object of JSON per line.
"""

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import photographs, training, worker
from benchmarks.gpu_jax import peak, set_precision
from wsss_jax.data.loader import training_batches
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.files import read_json, with_tuples, write_json
from wsss_jax.methods.base import Method
from wsss_jax.methods.prediction import prediction
from wsss_jax.methods.variables import init_variables, variable_shapes
from wsss_jax.ops.sharding import data_mesh, replicated, sharded
from wsss_jax.pipeline import graph
from wsss_jax.pipeline.config import load_config
from wsss_jax.stages.base import Context
from wsss_jax.stages.infer_cam import InferCam
from wsss_jax.stages.train import Train
from wsss_jax.weights.npz import load_weights, save_weights


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
    recipe: str,
    dtype: str,
    folder: str,
    images: int,
    longest: int,
    names: list[str],
    settings: dict[str, Any],
    turn: float,
) -> None:
    """Seconds of a recipe's stages on drawn photographs, and of its network alone.

    The stages are `names`, of which the first has other `settings` than in the recipe.

    Each stage runs twice: the first time it compiles, and the second time it finds its programs in
    JAX's cache. Networks have random weights. Needed stages must be in `folder` already, except for
    those that train.
    """
    here, precision = Path(folder), set_precision(dtype)
    voc = photographs.devkit(here, images, longest)
    config = _on_photographs(recipe, here, voc)
    config[names[0]].update(settings)
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
                worker.emit(images=images, stages=found, **peak())
    for node in nodes:
        if isinstance(node.stage, InferCam) and node.name in names:
            rate = _network_rate(node.stage, here / node.needs["checkpoint"], longest, turn)
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


def _network_rate(how: InferCam, checkpoint: Path, longest: int, turn: float) -> float:
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

        seconds = worker.seconds_per_call(call, wait, turn)
        total += statistics.median(seconds) / len(batch.positions)
    return 1 / total


WORKS = {work.__name__: work for work in (training_input, stages)}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    WORKS[arguments.pop("work")](**arguments)
