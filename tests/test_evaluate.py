import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from wsss_jax import evaluate, scoring
from wsss_jax.context import Context
from wsss_jax.data.cam_files import write_cams, write_irn_cams, write_seam_cams
from wsss_jax.data.images import encode_mask
from wsss_jax.errors import UserError
from wsss_jax.ops.confusion import confusion_matrix, confusion_scores
from wsss_jax.stages.evaluate import run

CLASSES = ("cat", "dog", "cow")
IDS = [f"image{i}" for i in range(6)]
SHAPE = (9, 7)


def draw_mask(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, SHAPE).astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Random ground truth with some 255, masks that agree in part, and CAMs that do as well."""
    for name in ("gt", "pred/masks", "maps/cams", "stage"):
        (tmp_path / name).mkdir(parents=True)
    for index, name in enumerate(IDS):
        rng = np.random.default_rng(100 + index)
        truth = draw_mask(index)
        prediction = np.where(rng.random(SHAPE) < 0.6, truth, draw_mask(50 + index))
        keys = np.array([0, 2])
        cam = rng.random((2, *SHAPE)).astype(np.float32)
        cam = np.clip(cam * 0.6 + 0.3 * (truth == (keys + 1)[:, None, None]), 0, 1)
        write_cams(tmp_path / f"maps/cams/{name}.npz", keys, cam)
        truth[rng.random(SHAPE) < 0.1] = 255
        (tmp_path / f"gt/{name}.png").write_bytes(encode_mask(truth))
        (tmp_path / f"pred/masks/{name}.png").write_bytes(encode_mask(prediction))
    (tmp_path / "list.txt").write_text("\n".join(IDS) + "\n")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    return tmp_path


def command(folders: Path, *more: str, **changes: str) -> list[str]:
    options = {
        "pred": str(folders / "pred/masks"),
        "gt": str(folders / "gt"),
        "list": str(folders / "list.txt"),
        "classes": str(folders / "classes.txt"),
        "json": str(folders / "out.json"),
        **changes,
    }
    return [f"--{key}={value}" for key, value in options.items()] + list(more)


def read_png(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def expected_confusion(folders: Path, ids: list[str], threshold: float | None = None) -> np.ndarray:
    """Image by image, threshold by threshold, as directly as it can be said."""
    total = np.zeros((4, 4), np.int64)
    for name in ids:
        truth = read_png(folders / f"gt/{name}.png")
        if threshold is None:
            prediction = read_png(folders / f"pred/masks/{name}.png")
        else:
            with np.load(folders / f"maps/cams/{name}.npz") as arrays:
                cam = arrays["cam"].astype(np.float32)
            background = np.full((1, *SHAPE), threshold, np.float32)
            prediction = np.array([0, 1, 3], np.uint8)[np.concatenate([background, cam]).argmax(0)]
        total += confusion_matrix(prediction, truth, 3)
    return total


# The command line


def test_golden_scores_of_the_published_program(shared: Path, tmp_path: Path):
    voc = shared / "data/voc_mini/VOCdevkit/VOC2012"
    status = evaluate.main(
        [
            f"--pred={shared / 'golden/eval/pred'}",
            f"--gt={voc / 'SegmentationClass'}",
            f"--list={voc / 'ImageSets/Segmentation/val.txt'}",
            f"--json={tmp_path / 'out.json'}",
        ]
    )
    assert status == 0
    scores = json.loads((tmp_path / "out.json").read_text())
    expected = json.loads((shared / "golden/eval/expected.json").read_text())
    assert 100 * scores["miou"] == pytest.approx(expected.pop("mIoU"), abs=1e-9)
    assert scores["iou"].keys() == expected.keys()
    for name, value in expected.items():
        assert 100 * scores["iou"][name] == pytest.approx(value, abs=1e-9)
    assert scores["images"] == 165


def test_masks_and_the_keys_of_the_json(folders: Path, capsys: pytest.CaptureFixture[str]):
    assert evaluate.main(command(folders)) == 0
    scores = json.loads((folders / "out.json").read_text())
    named = {"miou", "iou", "precision", "recall", "pixel_accuracy", "images"}
    assert scores.keys() == named | {"boundary_miou", "boundary_iou"}
    assert scores["boundary_miou"] == pytest.approx(np.mean(list(scores["boundary_iou"].values())))
    confusion = expected_confusion(folders, IDS)
    expected = confusion_scores(confusion)
    assert list(scores["iou"]) == sorted(["background", *CLASSES])
    assert scores["iou"]["dog"] == pytest.approx(expected["iou"][2], abs=1e-12)
    assert scores["miou"] == pytest.approx(expected["iou"].mean(), abs=1e-12)
    assert scores["precision"] == pytest.approx(expected["precision"].mean(), abs=1e-12)
    assert scores["recall"] == pytest.approx(expected["recall"].mean(), abs=1e-12)
    assert scores["pixel_accuracy"] == pytest.approx(np.trace(confusion) / confusion.sum())
    assert scores["images"] == 6
    assert f"mIoU {100 * scores['miou']:.2f}" in capsys.readouterr().out


def test_curve_equals_thresholding_again_and_again(folders: Path):
    assert evaluate.main(command(folders, "--curve", pred=str(folders / "maps/cams"))) == 0
    scores = json.loads((folders / "out.json").read_text())
    assert scores["thresholds"] == [i / 100 for i in range(60)]
    for position in (0, 17, 40, 59):
        confusion = expected_confusion(folders, IDS, position / 100)
        expected = confusion_scores(confusion)["miou"]
        assert scores["miou_curve"][position] == pytest.approx(expected, abs=1e-12)
    best = int(np.argmax(scores["miou_curve"]))
    assert scores["best_threshold"] == best / 100 and 0 < best < 59
    assert scores["miou"] == scores["miou_curve"][best]


def test_a_fixed_threshold_off_the_grid(folders: Path):
    pred = str(folders / "maps")  # a stage's folder is accepted for its cams/
    assert evaluate.main(command(folders, "--threshold=0.333", pred=pred)) == 0
    scores = json.loads((folders / "out.json").read_text())
    expected = confusion_scores(expected_confusion(folders, IDS, 0.333))
    assert scores["miou"] == pytest.approx(expected["miou"], abs=1e-12)
    assert "miou_curve" not in scores
    assert evaluate.main(command(folders, "--threshold=0.333", "--curve", pred=pred)) == 0
    both = json.loads((folders / "out.json").read_text())
    assert both["miou"] == scores["miou"] and len(both["miou_curve"]) == 60


@pytest.mark.parametrize("public", ["seam", "irn"])
def test_public_cam_files_score_alike(folders: Path, public: str):
    (folders / "public").mkdir()
    for name in IDS:
        with np.load(folders / f"maps/cams/{name}.npz") as arrays:
            keys, cam = arrays["keys"], arrays["cam"]
        if public == "seam":
            write_seam_cams(folders / f"public/{name}.npy", keys, cam)
        else:
            write_irn_cams(folders / f"public/{name}.npy", keys, cam[:, ::4, ::4], cam)
    results = []
    for pred in ("maps/cams", "public"):
        assert evaluate.main(command(folders, "--curve", pred=str(folders / pred))) == 0
        results.append((folders / "out.json").read_text())
    assert results[0] == results[1]


def test_the_published_lists_of_pairs_and_absent_classes(folders: Path):
    lines = [f"/JPEGImages/{n}.jpg /SegmentationClass/{n}.png" for n in IDS[:1]]
    (folders / "list.txt").write_text("\n".join(lines))
    (folders / "classes.txt").write_text("background\ncat\ndog\ncow\nunicorn\n")
    assert evaluate.main(command(folders)) == 0
    strict = json.loads((folders / "out.json").read_text())
    assert strict["iou"]["unicorn"] == 0
    assert evaluate.main(command(folders, protocol="present")) == 0
    present = json.loads((folders / "out.json").read_text())
    assert present["iou"]["unicorn"] is None
    assert present["miou"] == pytest.approx(strict["miou"] * 5 / 4)


def spoil(folders: Path, kind: str) -> dict[str, str]:
    mask = folders / "pred/masks/image3.png"
    truth = folders / "gt/image3.png"
    pixels = read_png(mask)
    match kind:
        case "no pred folder":
            return {"pred": str(folders / "nowhere")}
        case "no gt folder":
            return {"gt": str(folders / "nowhere")}
        case "no list":
            return {"list": str(folders / "nowhere.txt")}
        case "empty list":
            (folders / "list.txt").write_text("\n")
        case "id twice":
            (folders / "list.txt").write_text("image3\nimage3\n")
        case "no prediction":
            mask.unlink()
        case "no truth":
            truth.unlink()
        case "size":
            mask.write_bytes(encode_mask(pixels[:, :5]))
        case "rgb":
            Image.fromarray(np.stack([pixels] * 3, -1)).save(mask)
        case "index":
            pixels[0, 0] = 4
            mask.write_bytes(encode_mask(pixels))
        case "ignored":
            pixels[:2, 0] = 255
            mask.write_bytes(encode_mask(pixels))
        case "truth index":
            truth.write_bytes(encode_mask(pixels * 0 + 4))
        case "truncated":
            data = mask.read_bytes()
            mask.write_bytes(data[: len(data) - 60])
        case "maps":
            return {"pred": str(folders / "maps/cams")}
    return {}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no pred folder", "expected a folder at .*nowhere"),
        ("no gt folder", "expected a folder at .*nowhere"),
        ("no list", r"nowhere\.txt"),
        ("empty list", r"list\.txt, found an empty file"),
        ("id twice", "image3 twice"),
        ("no prediction", "each of 6 ids in .*masks, found none for 1: image3"),
        ("no truth", "each of 6 ids in .*gt, found none for 1: image3"),
        ("size", r"image3\.png: expected 7×9 pixels .* found 5×9"),
        ("rgb", r"RGB.*image3\.png"),
        ("index", r"0 to 3 .*found 4 in .*image3\.png"),
        ("ignored", r"image3\.png: .* found 2 pixels of 255"),
        ("truth index", r"0 to 3 .*found 4 in .*gt.image3\.png"),
        ("truncated", r"image3\.png"),
        ("maps", "--threshold, or --curve"),
    ],
)
def test_mistakes_are_told_in_one_line_with_status_2(
    folders: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
):
    changes = spoil(folders, kind)
    assert evaluate.main(command(folders, **changes)) == 2
    printed = capsys.readouterr()
    error = printed.err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "Traceback" not in printed.err
    assert re.search(message, error), error
    assert printed.out == "" and not (folders / "out.json").exists()


def test_255_counts_as_background_on_request(folders: Path):
    spoil(folders, "ignored")
    assert evaluate.main(command(folders, "--ignore-as-background")) == 0


def test_the_program_starts_without_jax():
    code = "import sys, wsss_jax.evaluate; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# The stage


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Masks of a folder as a data source."""

    folder: Path
    ids: list[str]
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


def run_stage(folders: Path, pred: str, process_index: int = 0, **settings: Any) -> dict[str, Any]:
    ctx = FolderContext(
        config=ConfigDict({"seed": 3}),
        workdir=folders,
        stage="eval",
        stage_dir=folders / "stage",
        process_index=process_index,
        process_count=process_index + 1,
    )
    config = ConfigDict({"type": "evaluate", "split": "val", **settings})
    inputs = {"pred": folders / pred, "scores": folders / "scores"}
    return run(ctx, config, inputs)


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
    assert len(metrics["miou_curve"]) == 60
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
    with pytest.raises(UserError, match="from 1 to 5"):
        run_stage(folders, "maps", threshold="held_out", held_out_images=6)


def test_threshold_of_another_evaluation(folders: Path):
    (folders / "scores").mkdir()
    (folders / "scores/metrics.json").write_text(
        '{"best_threshold": 0.41, "threshold_choice": "oracle"}'
    )
    metrics = run_stage(folders, "maps", threshold="from:scores")
    assert metrics["threshold"] == 0.41 and metrics["threshold_choice"] == "fixed"
    with pytest.raises(UserError, match="names no need"):
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
    confusion = scoring.score_cams(tmp_path / "a.npy", truth, 1, [0.1]).confusion
    np.testing.assert_array_equal(confusion, [[[1, 0], [1, 0]]])


def test_nothing_to_score_is_refused():
    with pytest.raises(UserError, match="empty list"):
        scoring.score_images([], lambda _: scoring.Counts(np.zeros((1, 2, 2), np.int64)))
