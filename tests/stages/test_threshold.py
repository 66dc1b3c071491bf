"""The threshold without ground truth: its criterion, and the stage that applies it."""

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.toys.sections import run_section
from wsss_jax.data.formats.cam_files import write_cams
from wsss_jax.data.masks import encode_mask
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.host.contrast import color_separation
from wsss_jax.scoring import score_files
from wsss_jax.stages.base import Context
from wsss_jax.stages.evaluate import Evaluate
from wsss_jax.stages.references import best_threshold
from wsss_jax.stages.threshold import Threshold

SIZE = 48


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image, score, truth): a disc of another color; the score falls with the distance."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    distance = np.hypot(y - rng.integers(20, 28), x - rng.integers(20, 28))
    truth = (distance < 14).astype(np.uint8)
    image = np.where(truth[..., None], [180, 90, 40], [60, 120, 80]) + rng.normal(0, 8, (48, 48, 3))
    score = np.clip(1 - distance / 28, 0, 1).astype(np.float32)  # 0.5 on the outline
    return image.clip(0, 255).astype(np.uint8), score, truth


def test_separation_is_that_of_the_definition():
    image, score, _ = scene(0)
    thresholds = [0.0, 0.3, 0.5, 0.999]
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab = cv2.GaussianBlur(lab, (0, 0), 1.5).reshape(-1, 3).astype(np.float64)
    found = color_separation(image, score, thresholds)
    for value, t in zip(found, thresholds, strict=True):
        above = score.ravel() > np.float32(t)
        w = above.mean()
        if w in (0, 1):
            assert value == 0
            continue
        gap = np.square(lab[above].mean(0) - lab[~above].mean(0)).sum()
        assert value == pytest.approx(w * (1 - w) * gap / lab.var(0).sum(), rel=1e-9)
    assert found.argmax() == 2


def test_separation_of_one_color_is_zero():
    flat = np.full((8, 9, 3), 77, np.uint8)
    score = np.random.default_rng(0).random((8, 9)).astype(np.float32)
    assert not color_separation(flat, score, [0.2, 0.5]).any()


class Images:
    """Scenes; the last image shows nothing."""

    ids = tuple(f"image{i}" for i in range(6))
    sizes = [scene(i)[0].shape[:2] for i in range(6)]  # noqa: RUF012
    classes = ("disc",)
    digest = "images"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        image, _, truth = scene(index)
        png = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()
        label = np.array([float(index < 5)], np.float32)
        return Record(
            id=self.ids[index],
            image=png,
            size=self.sizes[index],
            label=label,
            segmentation=encode_mask(truth * np.uint8(index < 5), palette=False),
        )


@dataclasses.dataclass(frozen=True)
class Given(Context):
    def source(self, split: str) -> Any:
        return Images()


def context(folder: Path, stage: str) -> Context:
    (folder / stage).mkdir(exist_ok=True)
    return Given(ConfigDict(dict(seed=0)), folder, stage, folder / stage)


@pytest.fixture
def cams(tmp_path: Path) -> Path:
    folder = tmp_path / "cam_train"
    for index, name in enumerate(Images.ids):
        path = folder / "cams" / f"{name}.npz"
        if index < 5:
            write_cams(path, np.array([0]), scene(index)[1][None])
        else:
            write_cams(path, np.zeros(0, np.int32), np.zeros((0, 0, 0), np.float32))
    return folder


def choose(folder: Path, cams: Path, **settings: Any) -> dict[str, Any]:
    config = ConfigDict(dict(type="threshold", split="train", **settings))
    ctx = context(folder, "threshold")
    result = run_section(Threshold, ctx, config, {"cams": cams})
    write_json(ctx.stage_dir / "metrics.json", result)
    return result


def test_the_stage_finds_the_outline_and_evaluation_compares(tmp_path: Path, cams: Path):
    result = choose(tmp_path, cams)
    assert result["best_threshold"] == pytest.approx(0.5, abs=0.03)
    assert result["images"] == 6 and result["threshold_choice"] == "contrast"
    curve = result["separation_curve"]
    assert score_files.THRESHOLDS[int(np.argmax(curve))] == result["best_threshold"]
    assert best_threshold(tmp_path / "threshold") == (result["best_threshold"], "contrast")

    compare = dict(contrast="from:threshold", low=0.1)
    config = ConfigDict(dict(type="evaluate", split="train", compare=compare))
    needs = {"pred": cams, "threshold": tmp_path / "threshold"}
    scores = run_section(Evaluate, context(tmp_path, "scores"), config, needs)
    compared = scores["compared"]
    curve = dict(zip(scores["thresholds"], scores["miou_curve"], strict=True))
    for name in compare:
        found = compared[name]
        assert found["miou"] == pytest.approx(curve[found["threshold"]], abs=1e-12)
    assert compared["low"]["threshold"] == 0.1
    assert compared["low"]["miou"] < compared["contrast"]["miou"] <= scores["miou"]


def test_empty_maps_are_told(tmp_path: Path, cams: Path, capsys: pytest.CaptureFixture[str]):
    assert "warnings" not in choose(tmp_path, cams)
    empty = np.zeros((1, SIZE, SIZE), np.float32)
    write_cams(cams / "cams/image0.npz", np.array([0]), empty)
    assert choose(tmp_path, cams)["warnings"] == [
        "1 of 5 maps are empty (image0); the classifier may have learned little"
    ]
    assert "[threshold] WARNING: 1 of 5 maps are empty (image0)" in capsys.readouterr().out
    for name in Images.ids[:5]:
        write_cams(cams / f"cams/{name}.npz", np.array([0]), empty)
    with pytest.raises(UserError, match=r"found all 5 of 6 images empty"):
        choose(tmp_path, cams)
    for name in Images.ids:
        write_cams(cams / f"cams/{name}.npz", np.zeros(0, int), empty[:0])
    with pytest.raises(UserError, match=r"images with classes .* found none among the 6 that"):
        choose(tmp_path, cams)


def test_mistakes_are_the_users(tmp_path: Path, cams: Path):
    with pytest.raises(UserError, match="images of 1 or more, found 0"):
        choose(tmp_path, cams, images=0)
    config = ConfigDict(dict(type="evaluate", split="train", compare=dict(best="oracle")))
    with pytest.raises(UserError, match="'oracle'"):
        run_section(Evaluate, context(tmp_path, "scores"), config, {"pred": cams})
    write_cams(cams / "cams" / "image2.npz", np.array([0]), np.ones((1, 5, 6), np.float32))
    with pytest.raises(UserError, match=r"48×48 pixels .*found 6×5"):
        choose(tmp_path, cams)
    (cams / "cams" / "image1.npz").unlink()
    with pytest.raises(UserError, match="image1"):
        choose(tmp_path, cams)
