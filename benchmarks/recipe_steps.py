"""Training steps of recipes as they stand: images per second, memory, and use of the device.

    .venv/bin/python benchmarks/recipe_steps.py --dtype bfloat16 --peak-tflops 989

Crop, batch, method and optimizer are the recipe's, on all devices of the machine; weights and
images are random and stay on the device. The recipes are those that learn from labels alone, each
in a process of its own, so that its peak memory is its own: the device's, on a CPU the process's.

Model FLOPs utilisation (MFU) is the floating-point work of a step, without what `remat` repeats,
over what the devices could do in that time: ``--peak-tflops`` is one device's, at the precision
that is used. On a CPU the work is not told, for convolutions have loops there, which the count
takes for one round. Prints a table in Markdown.
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.methods import build_method
from wsss_jax.methods.variables import init_variables
from wsss_jax.ops.sharding import data_mesh, global_batch
from wsss_jax.pipeline import memory
from wsss_jax.training.loop import init_state, make_train_step
from wsss_jax.training.optimizer import assign_rules, make_optimizer

PUBLISHED = ("cam_voc", "ssenet_voc", "seam_voc", "pss_voc", "ecsnet_voc")
NUM_CLASSES = 20


def made_up_batch(size: int, crop: int) -> dict[str, np.ndarray]:
    """Random images and labels of the form that the loader gives; an image has 1.5 classes."""
    rng = np.random.default_rng(0)
    label = np.eye(NUM_CLASSES, dtype=np.float32)[rng.integers(0, NUM_CLASSES, size)]
    label[::2] = np.maximum(label[::2], label[::-1][: len(label[::2])])
    return {
        "image": rng.integers(0, 256, (size, crop, crop, 3), np.uint8),
        "valid": np.ones((size, crop, crop), bool),
        "label": label,
        "index": np.arange(size, dtype=np.int32),
    }


def training(
    recipe: str, options: argparse.Namespace, **backbone: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """The jitted step of a recipe, its first state and its batch."""
    train = importlib.import_module(f"configs.{recipe}").get_config().train.to_dict()
    fields = {**train["method"], "dtype": options.dtype}
    fields["backbone"] = {**fields["backbone"], **backbone}
    method = build_method(fields, NUM_CLASSES)
    crop, size = options.crop or train["augment"]["crop"], options.batch or train["batch_size"]
    params, variables = init_variables(method, 0, crop)
    mesh = data_mesh()
    # Random weights: a small rate keeps them finite, and costs the same.
    settings = {**train["optimizer"], "lr": 1e-6}
    optimizer = make_optimizer(settings, assign_rules(params, method.param_rules()), 1000)
    state = init_state(method, optimizer, params, variables, 0, mesh)
    batch = made_up_batch(size, crop)
    return make_train_step(method, optimizer, params, mesh), state, global_batch(batch, mesh)


def measure(recipe: str, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one recipe, in this process."""
    keep_freed_memory()
    step, state, batch = training(recipe, options)
    seconds = []
    for _ in range(options.warmup + options.steps):
        start = time.perf_counter()
        state, metrics = step(state, batch)
        loss = float(metrics["loss"])
        seconds.append(time.perf_counter() - start)
    assert np.isfinite(loss), f"{recipe}: the loss is {loss}"
    held = memory.peak()
    peak = held["device"] or held["process"] or 0
    device, work = jax.devices()[0], None
    if device.platform != "cpu":
        plain, state, batch = training(recipe, options, remat=False)
        work = plain.lower(state, batch).cost_analysis()["flops"] / 1e12
    median = statistics.median(seconds[options.warmup :])
    size, crop = batch["image"].shape[:2]
    return {
        "batch": size,
        "crop": crop,
        "seconds": median,
        "images_per_second": size / median,
        "peak_gib": peak / 2**30,
        "tflop": work,
        "devices": jax.device_count(),
        "machine": f"{jax.device_count()} × {device.device_kind}, jax {jax.__version__}",
    }


def row(recipe: str, found: dict[str, Any], options: argparse.Namespace) -> str:
    """The table's row."""
    cells = [
        f"`{recipe}`",
        f"{found['batch']}",
        f"{found['crop']}",
        options.dtype,
        f"{found['images_per_second']:.3g}",
        f"{found['peak_gib']:.1f}",
    ]
    rate = found["tflop"] and found["tflop"] / found["seconds"]
    possible = options.peak_tflops * found["devices"]
    cells.append(f"{found['tflop']:.3g}" if rate else "not told")
    cells.append(f"{rate:.3g}" if rate else "not told")
    cells.append(f"{100 * rate / possible:.0f} %" if rate and possible else "not told")
    return f"| {' | '.join([*cells, found['machine']])} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add(
        "--recipes",
        nargs="+",
        default=list(PUBLISHED),
        help="modules of configs that learn from labels alone",
    )
    add("--batch", type=int, default=0, help="images of a step (0: the recipe's)")
    add("--crop", type=int, default=0, help="side of the images (0: the recipe's)")
    add("--dtype", default="float32", choices=("float32", "bfloat16"))
    add("--warmup", type=int, default=3, help="steps before the first measured one")
    add("--steps", type=int, default=10, help="measured steps")
    add("--peak-tflops", type=float, default=0.0, help="of one device; without it no MFU")
    add("--alone", action="store_true", help=argparse.SUPPRESS)  # one recipe, in this process
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure(options.recipes[0], options)))
        return
    names = ["recipe", "batch", "crop", "dtype", "images/s", "peak GiB", "TFLOP a step", "TFLOP/s"]
    names += ["MFU", "devices"]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for recipe in options.recipes:
        command = [sys.executable, *sys.argv, "--alone", "--recipes", recipe]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"| `{recipe}` | failed, see above |", flush=True)
        else:
            print(row(recipe, json.loads(done.stdout.splitlines()[-1]), options), flush=True)


if __name__ == "__main__":
    main()
