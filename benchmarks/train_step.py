"""Training steps per second, ours and PyTorch's, side by side in one run.

    .venv/bin/python benchmarks/train_step.py --torch-python TORCHENV/bin/python
    ... --recipes seam_voc --batch 1

Each side is a process of its own with the same threads, batch, crop, parameter groups and SGD
update; both keep freed memory as the trainer does. They take turns, a few steps each, so that what
else the machine does meets both alike. Prints a table in Markdown, and on standard error the time
of each step. On a machine that does something else too, compare the processor time on one thread
(``--threads 1``). ``--check`` turns dropout off and compares the losses of the first steps instead
of the time. Without an interpreter that has PyTorch only our side is measured, whatever the recipe.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command, tables, training, worker

COLUMNS = ("recipe", "backbone", "batch", "crop", "dtype", "ours, images/s", "PyTorch, images/s")
COLUMNS += ("ratio", "peak GiB, ours / PyTorch")


@dataclasses.dataclass
class Side:
    """One worker and what it has said so far."""

    process: worker.Worker
    seconds: list[float] = dataclasses.field(default_factory=list)
    processor: list[float] = dataclasses.field(default_factory=list)
    peak: float = 0.0

    def turn(self, steps: int) -> None:
        """Does and measures steps."""
        answer = self.process.ask(steps)
        self.seconds += answer["seconds"]
        self.processor += answer["processor"]
        self.peak = answer["peak_gib"]


def spec_of(recipe: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the workers are told."""
    changes = training.Options(
        options.batch, options.crop, options.dtype, lr=1e-4, dropout=not options.check
    )
    return {
        "recipe": recipe,
        "options": dataclasses.asdict(changes),
        "threads": options.threads,
        "keep_memory": not options.plain_malloc,
    }


def measure(recipe: str, options: argparse.Namespace, alone: str) -> str:
    """The table's row for one recipe; `alone` says why PyTorch takes no part, or is empty."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec.json").write_text(json.dumps(spec_of(recipe, options)))
        with worker.Worker(sys.executable, "jax_worker.py", folder, options.threads) as process:
            ours = Side(process)
            process.ask(0)  # answers once it has left what the other side reads
            if alone:
                return measured(recipe, options, folder, ours, None)
            with worker.Worker(
                options.torch_python, "torch_worker.py", folder, options.threads
            ) as other:
                if options.check:
                    return compare_losses(recipe, process, other)
                return measured(recipe, options, folder, ours, Side(other))


def measured(
    recipe: str, options: argparse.Namespace, folder: Path, ours: Side, theirs: Side | None
) -> str:
    """The row of the turns that the sides take."""
    sides = [side for side in (ours, theirs) if side]
    for side in sides:
        side.process.ask(options.warmup)
    for _ in range(options.rounds):
        for side in sides:
            side.turn(options.steps)
    twin = json.loads((folder / "twin.json").read_text())
    with np.load(folder / "batch.npz") as file:
        batch, crop = file["image"].shape[:2]
    speed = [batch / statistics.median(side.seconds) for side in sides]
    for side in sides:
        for name, values in (("seconds", side.seconds), ("processor seconds", side.processor)):
            per_step = " ".join(f"{value:.3g}" for value in sorted(values))
            print(f"{recipe}, {side.process.script}: {name} per step {per_step}", file=sys.stderr)
    cells = [recipe, twin["backbone"]["name"], batch, crop, options.dtype, f"{speed[0]:.2f}"]
    if theirs is None:
        return tables.row([*cells, "–", "–", f"{ours.peak:.1f} / –"])
    ratio, peaks = f"**{speed[0] / speed[1]:.2f}**", f"{ours.peak:.1f} / {theirs.peak:.1f}"
    return tables.row([*cells, f"{speed[1]:.2f}", ratio, peaks])


def compare_losses(recipe: str, ours: worker.Worker, theirs: worker.Worker, steps: int = 3) -> str:
    """Says how far apart the losses of the first steps are; exits with 1 where they differ.

    Relative to the largest loss: with random weights the first updates cut it by orders of
    magnitude, and what remains keeps the rounding errors of what was.
    """
    first, second = (np.array(side.ask(steps)["losses"]) for side in (ours, theirs))
    worst = float(np.abs(first - second).max() / np.abs(second).max())
    print(f"{recipe}: losses {first.tolist()} (ours), {second.tolist()} (PyTorch)")
    if not worst < 1e-3:
        sys.exit(f"{recipe}: the losses differ by {worst:.1e}, relative")
    return tables.row([recipe, f"losses of {steps} steps agree to {worst:.0e}"])


def main() -> None:
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("--torch-python", help="interpreter of an environment with PyTorch")
    add("--recipes", nargs="+", default=["cam_voc_light"], help="recipes with CAM or SEAM")
    training.add_options(parser)
    add("--threads", type=int, default=2)
    add("--warmup", type=int, default=2, help="steps before the first measured one")
    add("--steps", type=int, default=2, help="steps before the other side's turn")
    add("--rounds", type=int, default=4, help="turns of each side")
    add("--plain-malloc", action="store_true", help="leave the C library's allocator as it is")
    add("--check", action="store_true", help="compare losses without dropout, measure nothing")
    options = parser.parse_args()
    alone = worker.why_not(options.torch_python, "torch")
    if alone and (options.torch_python or options.check):
        parser.error(f"--torch-python: {alone}")
    worker.limit_threads(options.threads)
    print(tables.machine(options.threads, "jax", "numpy"))
    if alone:
        print(f"PyTorch is left out: {alone}.")
    if not options.check:
        print(f"\n{tables.head(COLUMNS)}")
    for recipe in options.recipes:
        try:
            print(measure(recipe, options, alone), flush=True)
        except worker.WorkerEnded as error:
            sys.exit(f"{recipe}: {error}")


if __name__ == "__main__":
    main()
