"""Maps over scales and flips per second, ours and PyTorch's, side by side in one run.

    .venv/bin/python benchmarks/cam_inference.py --root VOCdevkit/VOC2012 \
        --torch-python TORCHENV/bin/python

Both sides do all that the infer_cam stage of a recipe does with photographs: decode, resize to
every scale, run with the flipped copy, upsample, sum, normalize, write. PyTorch runs one image at a
time at its exact sizes (channels-last, inference mode), and ours is the stage itself, with a plan
for all images. Each side is a process of its own with the same threads and the same random weights;
both keep freed memory. They take turns of a few images, so that other work on the machine meets
both alike. The first round goes through all images and includes compiling, without a cache. The
second repeats some turns, with everything compiled. The maps of one turn are compared at the end.
Processor seconds are those of all threads, and less noisy than wall seconds on a machine that
others use, too.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command, tables, worker

COLUMNS = ("recipe", "images", "time", "ours, images/s", "PyTorch, images/s", "ratio")
COLUMNS += ("processor s/image, ours", "PyTorch", "ratio of processor time")
MOST_DIFFERENT = 5e-3
"""Of maps in 0…1, which are float16 in files, from photographs that both sides decode alike."""


class Side:
    """One worker and the seconds that it has taken so far."""

    def __init__(self, process: worker.Worker):
        self.process = process
        self.answers: list[dict[str, Any]] = []

    def turn(self, first: int, stop: int) -> None:
        self.answers.append(self.process.ask(f"{first} {stop}"))

    def seconds(self, kind: str) -> float:
        return sum(answer[kind] for answer in self.answers)


def rows(recipe: str, options: argparse.Namespace, alone: str) -> Iterator[str]:
    """The table's rows for one recipe; `alone` says why PyTorch takes no part, or is empty."""
    images = Path(options.root).resolve() / "JPEGImages"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = {"recipe": recipe, "images": str(images), "count": options.images}
        (folder / "spec.json").write_text(json.dumps({**spec, "threads": options.threads}))
        with worker.Worker(sys.executable, "cam_worker.py", folder, options.threads) as process:
            padding = process.ask("0 0")["padding"]  # answers once it has left what PyTorch reads
            print(f"{recipe}: {100 * padding:.1f} % padding", file=sys.stderr)
            if alone:
                yield from measured(recipe, options, [Side(process)])
                return
            with worker.Worker(
                options.torch_python, "torch_cam_worker.py", folder, options.threads
            ) as other:
                yield from measured(recipe, options, [Side(process), Side(other)])
                for one in (process, other):
                    one.ask(f"0 {min(options.turn, options.images)} keep")
                difference = largest_difference(folder)
                print(f"{recipe}: maps differ by {difference:.1e} at most", file=sys.stderr)
                if not difference < MOST_DIFFERENT:
                    sys.exit(f"{recipe}: the maps differ by {difference:.1e}")


def measured(recipe: str, options: argparse.Namespace, sides: list[Side]) -> Iterator[str]:
    """The rows with and without compiling."""
    turns = [
        (first, min(first + options.turn, options.images))
        for first in range(0, options.images, options.turn)
    ]
    repeated = turns[: options.repeat] or turns
    for label, ranges in (("with compiling", turns), ("compiled", repeated)):
        for side in sides:
            side.answers = []
        for first, stop in ranges:
            for side in sides:
                side.turn(first, stop)
        count = sum(stop - first for first, stop in ranges)
        wall, processor = (
            [side.seconds(kind) / count for side in sides] for kind in ("wall", "processor")
        )
        cells: list[Any] = [recipe, count, label, f"{1 / wall[0]:.2f}"]
        if len(sides) == 1:
            cells += ["–", "–", f"{processor[0]:.3f}", "–", "–"]
        else:
            cells += [f"{1 / wall[1]:.2f}", f"**{wall[1] / wall[0]:.2f}**"]
            cells += [f"{one:.3f}" for one in processor]
            cells += [f"**{processor[1] / processor[0]:.2f}**"]
        yield tables.row(cells)
        for side in sides:
            peak = side.answers[-1]["peak_gib"]
            print(f"{recipe}, {label}, {side.process.script}: {peak:.1f} GiB", file=sys.stderr)


def largest_difference(folder: Path) -> float:
    """Between the maps that the last turns of both sides have left."""
    worst = 0.0
    for path in sorted((folder / "ours/cams").iterdir()):
        with np.load(path) as ours, np.load(folder / "theirs/cams" / path.name) as theirs:
            assert ours["keys"].tolist() == theirs["keys"].tolist()
            maps = [file["cam"].astype(np.float32) for file in (ours, theirs)]
            worst = max(worst, float(np.abs(maps[0] - maps[1]).max()))
    return worst


def main() -> None:
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("--root", required=True, help="a VOC2012 folder; its JPEGImages are used")
    add("--torch-python", help="interpreter of an environment with PyTorch and Pillow")
    recipes = ["cam_voc_light", "cam_irn_voc"]
    add("--recipes", nargs="+", default=recipes, help="recipes with CAM")
    add("--images", type=int, default=40, help="drawn from the folder, and planned together")
    add("--turn", type=int, default=20, help="images before the other side's turn")
    add("--repeat", type=int, default=2, help="turns that are repeated when all is compiled")
    add("--threads", type=int, default=2)
    options = parser.parse_args()
    alone = worker.why_not(options.torch_python, "torch")
    if alone and options.torch_python:
        parser.error(f"--torch-python: {alone}")
    worker.limit_threads(options.threads)
    print(tables.machine(options.threads, "jax", "numpy"))
    if alone:
        print(f"PyTorch is left out: {alone}.")
    print(f"\n{tables.head(COLUMNS)}")
    for recipe in options.recipes:
        try:
            for row in rows(recipe, options, alone):
                print(row, flush=True)
        except worker.WorkerEnded as error:
            sys.exit(f"{recipe}: {error}")


if __name__ == "__main__":
    main()
