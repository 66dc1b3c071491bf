"""Training steps per second, ours and PyTorch's, side by side in one run.

    .venv/bin/python benchmarks/train_step.py --torch-python TORCHENV/bin/python

Each side is a process of its own with the same threads, batch, crop, parameter groups and SGD
update; both keep freed memory as the trainer does. They take turns, a few steps each, so that what
else the machine does meets both alike. Prints a table in Markdown. ``--check`` turns dropout off
and compares the losses of the first steps instead of the time.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
NUM_CLASSES = 20
DEFAULTS = {"cam_voc_light": (16, 224)}  # batch, crop
LARGE = (1, 448)  # ResNet38: what an ordinary machine has memory for


class Side:
    """One worker process."""

    def __init__(self, python: str, script: str, folder: Path, threads: int):
        self.log = (folder / f"{script}.log").open("w+")
        self.process = subprocess.Popen(
            [python, str(HERE / script), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment(threads),
        )
        self.seconds: list[float] = []
        self.answer: dict[str, Any] = {}

    def steps(self, count: int) -> dict[str, Any]:
        """Does `count` steps; returns the worker's answer (see `worker.serve`)."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.log.seek(0)
            sys.exit(f"{self.log.name}: the worker ended\n{self.log.read()[-2000:]}")
        self.answer = json.loads(line)
        return self.answer

    def close(self) -> None:
        """Ends the worker."""
        self.process.kill()
        self.process.wait()
        self.log.close()


def environment(threads: int) -> dict[str, str]:
    """Environment of both workers: the same number of threads, no accelerator."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": str(HERE.parent),
    }


def make_spec(recipe: str, options: argparse.Namespace) -> dict[str, Any]:
    """What both sides are told about `recipe`, a module of configs."""
    train = importlib.import_module(f"configs.{recipe}").get_config().train.to_dict()
    method, optimizer = {**train["method"], "dtype": options.dtype}, train["optimizer"]
    # Random weights are trained here: a small rate keeps them finite, and costs the same.
    optimizer["lr"] = 1e-4
    if options.check:
        method["dropout"] = 0.0
        if method["backbone"]["name"] == "resnet38":
            method["backbone"]["dropout"] = (0.0, 0.0)
    return {
        "method": method,
        "optimizer": optimizer,
        "num_classes": NUM_CLASSES,
        "threads": options.threads,
        "keep_memory": not options.plain_malloc,
    }


def write_batch(path: Path, batch: int, crop: int) -> None:
    """Random images and labels of the form that the loader gives."""
    rng = np.random.default_rng(0)
    np.savez(
        path,
        image=rng.integers(0, 256, (batch, crop, crop, 3), np.uint8),
        valid=np.ones((batch, crop, crop), bool),
        label=(rng.random((batch, NUM_CLASSES)) < 0.1).astype(np.float32),
        index=np.arange(batch, dtype=np.int32),
    )


def measure(recipe: str, options: argparse.Namespace) -> str:
    """The table's row for one recipe."""
    batch, crop = DEFAULTS.get(recipe, LARGE)
    batch, crop = options.batch or batch, options.crop or crop
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = make_spec(recipe, options)
        (folder / "spec.json").write_text(json.dumps(spec))
        write_batch(folder / "batch.npz", batch, crop)
        subprocess.run(
            [sys.executable, str(HERE / "jax_worker.py"), name, "--export"],
            check=True,
            env=environment(options.threads),
        )
        spec["rules"] = json.loads((folder / "rules.json").read_text())
        (folder / "spec.json").write_text(json.dumps(spec))
        ours = Side(sys.executable, "jax_worker.py", folder, options.threads)
        theirs = Side(options.torch_python, "torch_worker.py", folder, options.threads)
        try:
            if options.check:
                return compare_losses(recipe, ours, theirs)
            for side in (ours, theirs):
                side.steps(options.warmup)
            for _ in range(options.rounds):
                for side in (ours, theirs):
                    side.seconds += side.steps(options.steps)["seconds"]
        finally:
            ours.close()
            theirs.close()
    for name, side in (("ours", ours), ("PyTorch", theirs)):
        seconds = " ".join(f"{value:.2f}" for value in sorted(side.seconds))
        print(f"{recipe}, {name}: seconds per step {seconds}", file=sys.stderr)
    speed = [batch / statistics.median(side.seconds) for side in (ours, theirs)]
    memory = [side.answer["peak_gib"] for side in (ours, theirs)]
    return (
        f"| {recipe} | {spec['method']['backbone']['name']} | {batch} | {crop} | {options.dtype}"
        f" | {speed[0]:.2f} | {speed[1]:.2f} | **{speed[0] / speed[1]:.2f}**"
        f" | {memory[0]:.1f} / {memory[1]:.1f} |"
    )


def compare_losses(recipe: str, ours: Side, theirs: Side, steps: int = 3) -> str:
    """Says how far apart the losses of the first steps are; exits with 1 where they differ.

    Relative to the largest loss: with random weights the first updates cut it by orders of
    magnitude, and what remains keeps the rounding errors of what was.
    """
    first, second = (np.array(side.steps(steps)["losses"]) for side in (ours, theirs))
    worst = float(np.abs(first - second).max() / np.abs(second).max())
    print(f"{recipe}: losses {first.tolist()} (ours), {second.tolist()} (PyTorch)")
    if not worst < 1e-3:
        sys.exit(f"{recipe}: the losses differ by {worst:.1e}, relative")
    return f"| {recipe} | losses of {steps} steps agree to {worst:.0e} |"


def machine(threads: int) -> str:
    """Processor, threads and versions in one line."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((li.split(":")[1].strip() for li in lines if "model name" in li), cpu)
    return f"{cpu}, {threads} threads, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--torch-python", required=True, help="interpreter of an environment with PyTorch")
    add("--recipes", nargs="+", default=["cam_voc_light", "seam_voc"], help="modules of configs")
    add("--batch", type=int, default=0, help="images of a step (0: as the recipe's default here)")
    add("--crop", type=int, default=0, help="side of the images (0: as the recipe)")
    add("--dtype", default="float32", choices=("float32", "bfloat16"))
    add("--threads", type=int, default=2)
    add("--warmup", type=int, default=2, help="steps before the first measured one")
    add("--steps", type=int, default=2, help="steps before the other side's turn")
    add("--rounds", type=int, default=4, help="turns of each side")
    add("--plain-malloc", action="store_true", help="leave the C library's allocator as it is")
    add("--check", action="store_true", help="compare losses without dropout, measure nothing")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # XLA takes as many threads as it may use processors
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    sys.path.insert(0, str(HERE.parent))
    print(machine(options.threads))
    if not options.check:
        print(
            "\n| recipe | backbone | batch | crop | dtype | ours, images/s | PyTorch, images/s"
            " | ratio | peak GiB, ours / PyTorch |\n|---|---|---|---|---|---|---|---|---|"
        )
    for recipe in options.recipes:
        print(measure(recipe, options), flush=True)


if __name__ == "__main__":
    main()
