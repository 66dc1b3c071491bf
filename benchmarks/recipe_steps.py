"""Training steps of recipes as they stand: images per second, memory, and use of the device.

    .venv/bin/python benchmarks/recipe_steps.py --dtype bfloat16 --peak-tflops 989

Crop, batch, method and optimizer are the recipe's, on all devices of the machine; weights and
images are random and stay on the device. The recipes are those that learn from labels alone, each
in a process of its own, so that its peak memory is its own: the device's, on a CPU the process's.

Model FLOPs utilization (MFU) is the floating-point work of a step, without what `remat` repeats,
over what the devices could do in that time: ``--peak-tflops`` is one device's, at the precision
that is used. On a CPU the work is not told, for convolutions have loops there, which the count
takes for one round. Prints a table in Markdown.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import tables, training
from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.pipeline import memory

PUBLISHED = ("cam_voc", "ssenet_voc", "seam_voc", "pss_voc", "ecsnet_voc")
COLUMNS = ("recipe", "batch", "crop", "dtype", "images/s", "peak GiB", "TFLOP a step", "TFLOP/s")
COLUMNS += ("MFU", "devices")


def measure(recipe: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of one recipe, in this process."""
    keep_freed_memory()
    options = training.Options(arguments.batch, arguments.crop, arguments.dtype)
    made = training.prepare(recipe, options)
    state, seconds, loss = made.state, [], float("nan")
    for _ in range(arguments.warmup + arguments.steps):
        start = time.perf_counter()
        state, metrics = made.step(state, made.batch)
        loss = float(metrics["loss"])
        seconds.append(time.perf_counter() - start)
    if not np.isfinite(loss):
        sys.exit(f"{recipe}: expected a finite loss, found {loss}")
    held = memory.peak()
    peak = held["device"] or held["process"] or 0
    device, work = jax.devices()[0], None
    if device.platform != "cpu":
        plain: Any = training.prepare(recipe, dataclasses.replace(options, remat=False))
        work = plain.step.lower(plain.state, plain.batch).cost_analysis()["flops"] / 1e12
    median = statistics.median(seconds[arguments.warmup :])
    size, crop = made.batch["image"].shape[:2]
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


def row(recipe: str, found: dict[str, Any], arguments: argparse.Namespace) -> str:
    """The table's row."""
    cells = [
        f"`{recipe}`",
        found["batch"],
        found["crop"],
        arguments.dtype,
        f"{found['images_per_second']:.3g}",
        f"{found['peak_gib']:.1f}",
    ]
    rate = found["tflop"] and found["tflop"] / found["seconds"]
    possible = arguments.peak_tflops * found["devices"]
    cells.append(f"{found['tflop']:.3g}" if rate else "not told")
    cells.append(f"{rate:.3g}" if rate else "not told")
    cells.append(f"{100 * rate / possible:.0f} %" if rate and possible else "not told")
    return tables.row([*cells, found["machine"]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add(
        "--recipes",
        nargs="+",
        default=list(PUBLISHED),
        help="recipes whose training stage learns from labels alone",
    )
    training.add_options(parser)
    add("--warmup", type=int, default=3, help="steps before the first measured one")
    add("--steps", type=int, default=10, help="measured steps")
    add("--peak-tflops", type=float, default=0.0, help="of one device; without it no MFU")
    add("--alone", action="store_true", help=argparse.SUPPRESS)  # one recipe, in this process
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure(arguments.recipes[0], arguments)))
        return
    print(tables.head(COLUMNS))
    failed = False
    for recipe in arguments.recipes:
        command = [sys.executable, *sys.argv, "--alone", "--recipes", recipe]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            failed = True
            print(f"| `{recipe}` | failed, see above |", flush=True)
        else:
            found = json.loads(done.stdout.splitlines()[-1])
            print(row(recipe, found, arguments), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
