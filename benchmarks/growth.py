"""Memory and time of the stages that only read and write files, by the number of images.

A run of tiny images goes through the real pipeline: its data set is prepared, its maps are hard
links to a few files, and then the stages choose a threshold, score maps, make masks, score masks
and draw the report. Each part is a process of its own, which first does the same with a few images,
so that imports and thread pools do not count. Memory is the peak resident memory above what the
process had then. Time is processor time, so that other work on the machine hardly changes it.

    python benchmarks/growth.py --folder /dev/shm/growth --images 1000 10000 100000
    python benchmarks/growth.py --folder /dev/shm/growth --images 1000 --classes 20 80 254

The folder should be in memory, because every file that a stage writes is flushed to the disk.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command, tables
from wsss_jax.data.augment import Augment
from wsss_jax.data.columns import Names
from wsss_jax.data.formats.cam_files import write_cams
from wsss_jax.data.loader import training_batches
from wsss_jax.data.masks import encode_mask
from wsss_jax.data.prepared import RecordBuilder
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.data.source import Record
from wsss_jax.pipeline.run import run
from wsss_jax.stages.base import Context, Stage

SIDE = 8  # pixels
KINDS = 8  # different images
FEW = 64  # images of the run that comes first
_LINKS = 50_000  # ext4 allows 65,000 links to a file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiny(DataSettings):
    """Images of 8 × 8 pixels of a few kinds, with masks.

    Attributes:
      images: the number of images.
      classes: the number of foreground classes.
    """

    images: int
    classes: int = 20

    def builder(self, split: str) -> "TinyBuilder":
        """Returns the builder; there is only one split. See `DataSettings`."""
        return TinyBuilder(self, split)


class TinyBuilder(RecordBuilder, skip_registration=True):
    """Makes the records."""

    name = "tiny"

    def __init__(self, data: Tiny, split: str):
        super().__init__(
            folder=data.prepared_root,
            split=split,
            fingerprint=hashlib.sha256(f"{data.images} {data.classes}".encode()).hexdigest(),
            ids=Names.of(f"image_{index:07d}" for index in range(data.images)),
            classes=[f"class_{index}" for index in range(data.classes)],
            masks=True,
        )

    def records(self, positions: range) -> Iterator[Record]:
        """Yields the records at `positions`."""
        kinds = [drawn(kind, len(self.classes)) for kind in range(KINDS)]
        encoded = [(encode_mask(t + 90), encode_mask(t, palette=False)) for t, _, _ in kinds]
        for index in positions:
            (_, keys, _), (image, mask) = kinds[index % KINDS], encoded[index % KINDS]
            label = np.zeros(len(self.classes), np.float32)
            label[keys] = 1
            size = (SIDE, SIDE)
            yield Record(id=self.ids[index], image=image, size=size, label=label, segmentation=mask)


def drawn(kind: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the truth of a kind of image, its classes, and maps that agree in part."""
    rng = np.random.default_rng(kind)
    keys = np.sort(rng.choice(classes, 2, replace=False))
    truth = rng.choice([0, *(keys + 1)], (SIDE, SIDE)).astype(np.uint8)
    maps = 0.5 * (truth == (keys + 1)[:, None, None]) + 0.5 * rng.random((2, SIDE, SIDE))
    return truth, keys, maps


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinkedMaps(Stage):
    """Makes maps that are hard links to a few files."""

    outputs: ClassVar[tuple[str, ...]] = ("cams/",)

    split: str = "train"

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`."""
        source = ctx.source(self.split)
        folder = ctx.stage_dir / "cams"
        folder.mkdir()
        for position, name in enumerate(source.ids):
            path = folder / f"{name}.npz"
            if position % _LINKS < KINDS:
                _, keys, maps = drawn(position % KINDS, len(source.classes))
                write_cams(path, keys, maps)
            else:
                first = position // _LINKS * _LINKS
                os.link(folder / f"{source.ids[first + position % KINDS]}.npz", path)
        return {"images": len(source)}


def recipe(images: int, classes: int, folder: Path) -> ConfigDict:
    """Returns the recipe of all parts."""
    c: Any = ConfigDict({"name": "growth", "seed": 0})
    data = str(_workdir(images, classes, folder) / "data")
    c.data = DataSettings.defaults(
        "benchmarks.growth", images=images, classes=classes, data_dir=data
    )
    c.maps = Stage.defaults("benchmarks.growth")
    of_maps, of_masks = {"pred": "maps"}, {"pred": "masks"}
    c.threshold = Stage.defaults("threshold", needs={"cams": "maps"}, split="train")
    c.scores = Stage.defaults("evaluate", needs=of_maps, split="train")
    c.masks = Stage.defaults("pseudo_labels", needs={"cams": "maps"}, split="train", threshold=0.4)
    c.mask_scores = Stage.defaults("evaluate", needs=of_masks, split="train")
    c.report = Stage.defaults("report", needs={"scores": "scores", "masks": "mask_scores"})
    c.stages = ("maps", "threshold", "scores", "masks", "mask_scores", "report")
    return c


def _stage(name: str) -> Callable[[int, int, Path], None]:
    def part(images: int, classes: int, folder: Path) -> None:
        # A stage that an earlier measurement finished would be skipped, and its imports with it.
        workdir = _workdir(images, classes, folder)
        run(recipe(images, classes, folder), workdir, (name,), force=True)

    return part


def _prepare(images: int, classes: int, folder: Path) -> None:
    shutil.rmtree(_workdir(images, classes, folder) / "data", ignore_errors=True)
    _stage("maps")(images, classes, folder)


def _finished(images: int, classes: int, folder: Path) -> None:
    workdir = _workdir(images, classes, folder)
    (workdir / "masks" / "_DONE.json").unlink()
    run(recipe(images, classes, folder), workdir, ("masks",))


def _records(images: int, classes: int, folder: Path) -> None:
    run(recipe(images, classes, folder), _workdir(images, classes, folder))


def _loader(images: int, classes: int, folder: Path) -> None:
    section: Any = recipe(images, classes, folder).data
    data = DataSettings.from_config(section, "data")
    batches = training_batches(
        data.open("train"),
        batch_size=16,
        augment=Augment(crop=SIDE, long_side=(SIDE, SIDE)),
        seed=0,
    )
    for _ in range(100):
        next(batches)


# Each part needs the results of the parts before it.
PARTS: dict[str, tuple[str, Callable[..., None]]] = {
    "prepare": ("preparing the data set; linking maps", _prepare),
    "loader": ("training loader: 100 batches of 16", _loader),
    "threshold": ("threshold", _stage("threshold")),
    "scores": ("evaluate maps at 100 thresholds", _stage("scores")),
    "masks": ("masks from maps, all missing", _stage("masks")),
    "finished": ("masks from maps, all finished", _finished),
    "mask_scores": ("evaluate masks", _stage("mask_scores")),
    "report": ("report", _stage("report")),
    "records": ("records of a finished run", _records),
    "again": ("masks deleted and made again (--force)", _stage("masks")),
}


def _workdir(images: int, classes: int, folder: Path) -> Path:
    return folder / f"run_{images}_{classes}"


def _status(field: str) -> int:
    """Returns a figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def measured(part: str, images: int, classes: int, folder: Path) -> dict[str, float]:
    """Runs a part, with a few images first, and returns ``bytes`` and ``seconds``."""
    _, work = PARTS[part]
    work(FEW, classes, folder)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = _status("VmRSS")
    start = time.process_time()
    work(images, classes, folder)
    return {"bytes": _status("VmHWM") - before, "seconds": time.process_time() - start}


def in_a_process(part: str, images: int, classes: int, folder: Path) -> dict[str, float]:
    """Returns the result of `measured` in a new process."""
    numbers = [f"--images={images}", f"--classes={classes}"]
    command = [sys.executable, __file__, f"--folder={folder}", "--one", part, *numbers]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{part} of {images} images failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are made")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--classes", type=int, nargs="+", default=[20])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--one", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        (images,), (classes,) = options.images, options.classes
        print(json.dumps(measured(options.one, images, classes, options.folder)))
        return
    print(tables.machine(len(os.sched_getaffinity(0)), "numpy", "tensorflow-datasets", "grain"))
    names = ("part", "classes", "images", "peak MB", "bytes per further image", "ms per image")
    print(f"images of {SIDE} x {SIDE} pixels\n\n{tables.head(names)}", flush=True)
    for part in options.parts:
        for classes in options.classes:
            few, peak = 0, 0.0
            for images in options.images:
                found = in_a_process(part, images, classes, options.folder)
                slope = (found["bytes"] - peak) / (images - few) if few else None
                few, peak = images, found["bytes"]
                cells = [PARTS[part][0], classes, f"{images:,}", f"{peak / 1e6:.1f}"]
                cells += ["" if slope is None else f"{slope:.0f}"]
                cells += [f"{1000 * found['seconds'] / images:.3f}"]
                print(tables.row(cells), flush=True)


if __name__ == "__main__":
    main()
