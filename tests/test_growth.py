"""Memory does not grow with the number of images, except for a few bytes each."""

import gc
import itertools
import os
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import growth
from wsss_jax.progress import Progress
from wsss_jax.scoring import score_files
from wsss_jax.stages import evaluate, report

FEW, MANY = 150, 450
MOST = 200  # bytes per image


def collecting(update: Callable[..., None]) -> Callable[..., None]:
    """Collects garbage on the way, or its collector decides how much of it there is at the peak."""
    calls = itertools.count()

    def then_collect(bar: Progress, count: int = 1, **figures: float | str) -> None:
        update(bar, count, **figures)
        if next(calls) % 10 == 0:
            gc.collect()

    return then_collect


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs with maps, whose stages do everything except for the work on the pixels of an image."""
    here = tmp_path_factory.mktemp("growth")
    of_maps, of_mask = (
        score_files.Counts(np.ones((rows, 3, 21), np.int64))
        for rows in (len(score_files.THRESHOLDS), 1 + len(score_files.CONFIDENCES))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)  # disks take milliseconds
        patch.setattr(evaluate, "_truth", lambda source, position: None)
        patch.setattr(score_files, "score_cams", lambda *given: of_maps)
        patch.setattr(score_files, "score_mask", lambda *given: of_mask)
        patch.setattr(report, "draw_picture", lambda *given: b"")
        patch.setattr(report, "build_page", lambda *given: "")
        patch.setattr(Progress, "update", collecting(Progress.update))
        for images in (growth.FEW, FEW, MANY):
            growth.PARTS["prepare"][1](images, 20, here)
        yield here


@pytest.mark.parametrize("part", ["scores", "masks", "finished", "mask_scores", "report"])
def test_memory_is_flat_in_the_number_of_images(folder: Path, part: str):
    _, work = growth.PARTS[part]

    def peak(images: int) -> int:
        gc.collect()
        gc.freeze()  # what is there already need not be looked at again
        tracemalloc.start()
        try:
            work(images, 20, folder)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.unfreeze()

    peak(growth.FEW)  # the first one starts what is needed
    few, many = peak(FEW), peak(MANY)
    # Now and then, Python allocates its table of strings anew, 4 MB; never twice in a row.
    if abs(many - few) >= MOST * (MANY - FEW):
        few, many = min(few, peak(FEW)), min(many, peak(MANY))
    assert abs(many - few) < MOST * (MANY - FEW), (few, many)


@pytest.mark.slow
def test_memory_is_flat_up_to_a_hundred_thousand_images(tmp_path: Path):
    memory = Path("/dev/shm")  # disks take minutes for so many files
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        for part in growth.PARTS:
            few, many = (growth.in_a_process(part, n, 20, Path(name)) for n in (20_000, 100_000))
            assert (many["bytes"] - few["bytes"]) / 80_000 < MOST, (part, few, many)
