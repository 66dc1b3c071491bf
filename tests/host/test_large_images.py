"""Photographs with more pixels than a CRF can take: bounded memory, nearly the same masks."""

import io
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from wsss_jax.data.masks import decode_mask
from wsss_jax.host import dense_crf, workers
from wsss_jax.host.dense_crf import PSA, DenseCrf, bounded_size, memory, score_unary
from wsss_jax.host.guided import upsampled_labels, upsampled_scores
from wsss_jax.host.logit_masks import LogitTask, class_scores, write_logit_mask
from wsss_jax.host.upsampling import Reduced, View, ViewMaps
from wsss_jax.host.workers import fitting_note, fitting_workers
from wsss_jax.stages.base import SplitSize
from wsss_jax.stages.predict import Predict

SIZE = (150, 200)


def scene(size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """(image, truth): a bright ellipse on a dark, noisy ground."""
    truth = np.zeros(size, np.uint8)
    middle, axes = (size[1] // 2, size[0] // 2), (size[1] // 3, size[0] // 4)
    cv2.ellipse(truth, middle, axes, 20, 0, 360, 1, -1)
    noise = np.random.default_rng(0).normal(0, 8, (*size, 3))
    image = np.where(truth[..., None], [190, 150, 60], [60, 80, 110]) + noise
    return image.clip(0, 255).astype(np.uint8), truth


def logits(truth: np.ndarray, labels: int = 3) -> ViewMaps:
    """Coarse logits, as of a network with stride 8, that follow the truth roughly."""
    low = (-(-truth.shape[0] // 8), -(-truth.shape[1] // 8))
    shown = cv2.resize(truth.astype(np.float32), low[::-1], interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(1)
    maps = rng.normal(0, 0.3, (labels, *low)).astype(np.float32)
    maps[0] += 2 * (1 - shown)
    maps[1] += 2 * shown
    view = View(maps, truth.shape, flipped=False)
    flipped = View(maps[:, :, ::-1].copy(), truth.shape, flipped=True)
    return ViewMaps(truth.shape, np.arange(labels), (view, flipped), "direct", relu_each=False)


def test_guided_scores_follow_the_edges_of_the_image():
    image, truth = scene()
    low = cv2.resize(truth.astype(np.float32), (25, 19), interpolation=cv2.INTER_AREA)
    scores = np.stack([1 - low, low])
    found = np.stack([*upsampled_scores(scores, image)])
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-4)
    labels = upsampled_labels(scores, image)
    np.testing.assert_array_equal(labels, found.argmax(0))
    plain = cv2.resize(scores[1], SIZE[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    wrong, wrong_plain = (labels != truth).mean(), (plain != truth).mean()
    assert wrong < 0.7 * wrong_plain, (wrong, wrong_plain)
    flat = np.full((*SIZE, 3), 90, np.uint8)
    even = np.stack([*upsampled_scores(scores, flat)])
    np.testing.assert_allclose(even.mean((1, 2)), scores.mean((1, 2)), atol=0.01)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def mask_of(task: LogitTask, folder: Path) -> np.ndarray:
    write_logit_mask(task, (folder / "mask.png",))
    return decode_mask((folder / "mask.png").read_bytes(), "x", None)


@pytest.mark.parametrize("on_device", [False, True])
def test_masks_of_large_images_are_nearly_those_of_the_whole_crf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_device: bool
):
    image, truth = scene()
    maps: Any = logits(truth)
    if on_device:
        maps = Reduced(maps.channels, (maps.summed() / 2).astype(np.float16))
    task = LogitTask("a", maps, png(image), PSA)
    whole = mask_of(task, tmp_path)
    np.testing.assert_array_equal(whole, class_scores(task).argmax(0))
    monkeypatch.setattr(dense_crf, "MOST_PIXELS", SIZE[0] * SIZE[1] // 4)
    assert bounded_size(SIZE) == (75, 100)
    seen: list[tuple[int, ...]] = []

    def spy(scores: np.ndarray, full: np.ndarray) -> np.ndarray:
        seen.append(scores.shape)
        return upsampled_labels(scores, full)

    monkeypatch.setattr("wsss_jax.host.logit_masks.upsampled_labels", spy)
    bounded = mask_of(task, tmp_path)
    assert seen == [(3, 75, 100)]
    np.testing.assert_array_equal(bounded, class_scores(task).argmax(0))
    assert (bounded == whole).mean() > 0.99
    coarse = maps.values if on_device else maps.summed()
    assert (bounded == truth).mean() > (coarse.argmax(0) == truth).mean()


def test_messages_of_large_images_are_passed_at_a_bounded_size(monkeypatch: pytest.MonkeyPatch):
    image, truth = scene()
    unary = np.moveaxis(score_unary(np.stack([1 - truth, truth]) * np.float32(0.6) + 0.2), 0, 2)
    settings: Any = dict(gaussian=PSA.gaussian, bilateral=PSA.bilateral)
    whole = DenseCrf(image, **settings).infer(unary, 5)
    monkeypatch.setattr(dense_crf, "MOST_PIXELS", 7000)
    for fast in (False, True):
        crf = DenseCrf(image, **settings, fast=fast)
        q = crf.infer(unary, 5)
        assert q.shape == whole.shape
        assert (q.argmax(2) == whole.argmax(2)).mean() > 0.98


def test_rows_are_summed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    maps = logits(scene()[1])
    np.testing.assert_allclose(maps.summed(slice(30, 57)), maps.summed()[:, 30:57], atol=1e-5)
    whole = mask_of(LogitTask("a", maps), tmp_path)
    monkeypatch.setattr("wsss_jax.host.logit_masks._VALUES", 7 * 3 * SIZE[1])
    np.testing.assert_array_equal(mask_of(LogitTask("a", maps), tmp_path), whole)


def test_fewer_processes_where_memory_is_short(monkeypatch: pytest.MonkeyPatch):
    photo, voc = (3000, 4000), (375, 500)
    assert 2e9 < memory(photo, 21, bounded=True) < 4e9 < memory(photo, 21)
    assert memory(voc, 3) < 2e8
    monkeypatch.setattr(workers, "free_memory", lambda: 8 << 30)
    each = memory(photo, 21, bounded=True)
    assert fitting_workers(16, each) == 2 and fitting_workers(1, each) == 1
    assert fitting_workers(16, memory(voc, 3)) == 16
    assert fitting_workers(16, 100 << 30) == 1, "one is tried"
    assert fitting_note(2, 16, each).startswith("2 of 16 processes work at once, because each")
    monkeypatch.setattr(workers, "free_memory", lambda: None)
    assert fitting_workers(16, each) == 16
    monkeypatch.undo()
    free = workers.free_memory()
    assert free is None or 0 <= free < 1 << 50


def test_the_plan_tells_the_processes(monkeypatch: pytest.MonkeyPatch):
    settings = ConfigDict(dict(type="predict", split="val", crf=True, workers=3))
    stage = Predict.from_config(settings, "masks")
    assert isinstance(stage, Predict)
    large = SplitSize(9, 20, [(375, 500), (3000, 4000)])
    monkeypatch.setattr(workers, "free_memory", lambda: 8 << 30)
    (line,) = stage.describe({"val": large}, asked=True)
    assert "2 of 3 processes work at once, because each needs up to" in line
    assert stage.describe({"val": SplitSize(9, 20)}, asked=True) == []
    (line,) = stage.describe({"val": SplitSize(9, 20, [(375, 500)])}, asked=True)
    assert "3 processes of up to 0.2 GiB each" in line


CHILD = """
import resource, sys
import numpy as np
from tests.host.test_large_images import logits, mask_of, png, scene
from wsss_jax.host.dense_crf import PSA
from wsss_jax.host.logit_masks import LogitTask
from pathlib import Path

image, truth = scene((3000, 4000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mask = mask_of(LogitTask("a", logits(truth, 21), png(image), PSA), Path(sys.argv[1]))
print((mask == truth).mean(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_a_photograph_of_12_megapixels_takes_less_than_4_gib(tmp_path: Path):
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    right, peak = map(float, done.stdout.split())
    assert right > 0.99 and peak < 4, (right, peak)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
