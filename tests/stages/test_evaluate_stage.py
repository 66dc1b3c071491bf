"""The stage that scores masks and maps: thresholds, splits, mistakes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.reference.confusion import confusion_scores
from tests.toys.scored_folders import (
    CLASSES,
    IDS,
    SHAPE,
    draw_folders,
    expected_confusion,
    read_png,
)
from tests.toys.sections import run_section
from wsss_jax.data.confidence import write_confidence
from wsss_jax.data.formats.cam_files import write_seam_cams
from wsss_jax.errors import UserError
from wsss_jax.scoring import score_files
from wsss_jax.stages.base import Context
from wsss_jax.stages.evaluate import Evaluate


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return draw_folders(tmp_path)


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Masks of a folder as a data source."""

    folder: Path
    ids: list[str]
    sizes: tuple[()] = ()
    classes: tuple[str, ...] = CLASSES
    digest: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.folder / f"{self.ids[index]}.png"
        return {"segmentation": path.read_bytes() if path.exists() else None}


class FolderContext(Context):
    def source(self, split: str) -> Any:
        return FolderSource(self.workdir / "gt", list(IDS))


def _context(folders: Path, process_index: int = 0) -> FolderContext:
    return FolderContext(
        config=ConfigDict({"seed": 3}),
        workdir=folders,
        stage="eval",
        stage_dir=folders / "stage",
        process_index=process_index,
        process_count=process_index + 1,
    )


def run_stage(folders: Path, pred: str, process_index: int = 0, **settings: Any) -> dict[str, Any]:
    ctx = _context(folders, process_index)
    config = ConfigDict({"type": "evaluate", "split": "val", **settings})
    inputs = {"pred": folders / pred, "scores": folders / "scores"}
    return run_section(Evaluate, ctx, config, inputs)


def test_stage_scores_masks(folders: Path, capsys: pytest.CaptureFixture[str]):
    metrics = run_stage(folders, "pred", protocol="present")
    expected = confusion_scores(expected_confusion(folders, IDS), "present")
    assert metrics["miou"] == pytest.approx(expected["miou"], abs=1e-12)
    assert metrics["protocol"] == "present" and metrics["split"] == "val"
    assert metrics["per_class"]["cow"]["fp_rate"] == pytest.approx(expected["fp_rate"][3])
    assert "threshold" not in metrics
    per_image = json.loads((folders / "stage/per_image.json").read_text())
    for name in IDS:
        alone = confusion_scores(expected_confusion(folders, [name]), "present")["miou"]
        assert per_image[name] == pytest.approx(alone, abs=1e-12)
    assert "background" in capsys.readouterr().out


def test_oracle_threshold_is_the_best_of_the_scored_images(folders: Path):
    metrics = run_stage(folders, "maps")
    assert metrics["threshold_choice"] == "oracle"
    assert metrics["threshold"] == metrics["best_threshold"]
    assert metrics["miou"] == max(metrics["miou_curve"])
    expected = confusion_scores(expected_confusion(folders, IDS, metrics["threshold"]))
    assert metrics["miou"] == pytest.approx(expected["miou"], abs=1e-12)
    position = metrics["thresholds"].index(metrics["threshold"])
    assert metrics["precision"] == metrics["precision_curve"][position]
    assert metrics["recall"] == metrics["recall_curve"][position]


@pytest.mark.parametrize("threshold", [0.333, "0.333", 0.25])
def test_fixed_threshold(folders: Path, threshold: float | str):
    metrics = run_stage(folders, "maps", threshold=threshold)
    assert metrics["threshold"] == float(threshold)
    assert metrics["threshold_choice"] == "fixed"
    assert len(metrics["miou_curve"]) == 100
    expected = confusion_scores(expected_confusion(folders, IDS, float(threshold)))
    assert metrics["miou"] == pytest.approx(expected["miou"], abs=1e-12)


def test_held_out_images_choose_and_the_others_are_scored(folders: Path):
    metrics = run_stage(folders, "maps", threshold="held_out", held_out_images=2)
    scored = list(json.loads((folders / "stage/per_image.json").read_text()))
    held_out = [name for name in IDS if name not in scored]
    assert len(held_out) == metrics["held_out_images"] == 2 and metrics["images"] == 4
    curve = [
        confusion_scores(expected_confusion(folders, held_out, t))["miou"]
        for t in metrics["thresholds"]
    ]
    assert metrics["threshold"] == metrics["best_threshold"] == int(np.argmax(curve)) / 100
    expected = confusion_scores(expected_confusion(folders, scored, metrics["threshold"]))
    assert metrics["miou"] == pytest.approx(expected["miou"], abs=1e-12)
    again = run_stage(folders, "maps", threshold="held_out", held_out_images=2)
    assert again == metrics
    with pytest.raises(UserError, match="above 0 and below the 6 images of the split, found 6"):
        run_stage(folders, "maps", threshold="held_out", held_out_images=6)
    for count in (0, 6):  # before any stage runs
        stage = Evaluate(split="val", threshold="held_out", held_out_images=count)
        with pytest.raises(UserError, match=f"below the 6 images of the split, found {count}"):
            stage.check_data(_context(folders))


def test_threshold_of_another_evaluation(folders: Path):
    (folders / "scores").mkdir()
    (folders / "scores/metrics.json").write_text(
        '{"best_threshold": 0.41, "threshold_choice": "oracle"}'
    )
    metrics = run_stage(folders, "maps", threshold="from:scores")
    assert metrics["threshold"] == 0.41 and metrics["threshold_choice"] == "fixed"
    with pytest.raises(UserError, match="expected from:NEED with a need of the stage"):
        run_stage(folders, "maps", threshold="from:nothing")
    (folders / "scores/metrics.json").write_text('{"miou": 0.5}')
    with pytest.raises(UserError, match="scores of CAMs"):
        run_stage(folders, "maps", threshold="from:scores")


def test_wrong_settings_and_missing_files(folders: Path):
    with pytest.raises(UserError, match="protocol"):
        run_stage(folders, "pred", protocol="lenient")
    with pytest.raises(UserError, match="as threshold, found 'best'"):
        run_stage(folders, "maps", threshold="best")
    with pytest.raises(UserError, match="masks/ or cams/"):
        run_stage(folders, "gt")
    (folders / "maps/cams/image2.npz").unlink()
    with pytest.raises(UserError, match="found none for 1: image2"):
        run_stage(folders, "maps")
    (folders / "gt/image4.png").unlink()
    with pytest.raises(UserError, match="ground-truth mask of image4"):
        run_stage(folders, "pred")


def test_only_the_first_process_scores(folders: Path):
    assert run_stage(folders, "pred", process_index=1) == {}
    assert not (folders / "stage/per_image.json").exists()


def test_an_empty_cam_file_is_all_background(tmp_path: Path):
    truth = np.array([[0, 1, 255]], np.uint8)
    write_seam_cams(tmp_path / "a.npy", np.zeros(0, np.int64), np.zeros((0, 1, 3), np.float32))
    counts = score_files.score_cams(tmp_path / "a.npy", truth, 1, [0.1]).classes
    np.testing.assert_array_equal(counts, [[[1, 0], [1, 1], [2, 0]]])


def test_nothing_to_score_is_refused():
    with pytest.raises(UserError, match="empty list"):
        score_files.score_images([], lambda _: score_files.Counts(np.zeros((1, 3, 2), np.int64)))


def test_the_surer_pixels_of_masks_are_scored_alone(
    folders: Path, capsys: pytest.CaptureFixture[str]
):
    """Confidences that tell right from wrong: the pixels kept are right, and so many."""
    assert "by_confidence" not in run_stage(folders, "pred")
    (folders / "pred/confidence").mkdir()
    right = scored = 0
    for index, name in enumerate(IDS):
        truth, mask = (read_png(folders / f"{f}/{name}.png") for f in ("gt", "pred/masks"))
        sure = np.random.default_rng(index).integers(0, 255 * 7 // 10, truth.shape)
        sure[mask == truth] += 255 * 3 // 10
        write_confidence(folders / f"pred/confidence/{name}.png", sure.astype(np.uint8))
        right += ((mask == truth) & (truth < 255) & (sure >= 0.9 * 255)).sum()
        scored += (truth < 255).sum()
    metrics = run_stage(folders, "pred", protocol="present")
    parts = {part["least"]: part for part in metrics["by_confidence"]}
    assert parts[0.9]["kept"] == pytest.approx(right / scored) and parts[0.9]["miou"] == 1
    assert metrics["miou"] < parts[0.5]["miou"] < parts[0.6]["miou"] < 1
    assert 1 > parts[0.5]["kept"] > parts[0.6]["kept"] > parts[0.9]["kept"] > 0
    assert parts[0.99]["kept"] < 0.1
    confusion = expected_confusion(folders, IDS)
    assert metrics["miou"] == pytest.approx(confusion_scores(confusion, "present")["miou"])
    assert "only the more certain pixels" in capsys.readouterr().out
    for name in IDS:
        write_confidence(folders / f"pred/confidence/{name}.png", np.zeros(SHAPE, np.uint8))
    nobody = run_stage(folders, "pred")["by_confidence"]
    assert all(part["kept"] == 0 and part["miou"] is None for part in nobody)
    (folders / f"pred/confidence/{IDS[2]}.png").unlink()
    with pytest.raises(
        UserError, match=f"file at .*confidence/{IDS[2]}.png, found none .*make the masks"
    ):
        run_stage(folders, "pred")
