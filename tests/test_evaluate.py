"""The command that scores masks and maps: values, published lists, mistakes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.reference.confusion import confusion_scores
from tests.toys.scored_folders import CLASSES, IDS, draw_folders, expected_confusion, read_png
from wsss_jax import evaluate
from wsss_jax.data.formats.cam_files import write_cams, write_irn_cams, write_seam_cams
from wsss_jax.data.masks import encode_mask


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return draw_folders(tmp_path)


def command(folders: Path, *more: str, **changes: str) -> list[str]:
    options = {
        "pred": str(folders / "pred/masks"),
        "gt": str(folders / "gt"),
        "list": str(folders / "list.txt"),
        "classes": str(folders / "classes.txt"),
        "json": str(folders / "out.json"),
        **changes,
    }
    return ["evaluate.py", *(f"--{key}={value}" for key, value in options.items()), *more]


def test_golden_scores_of_the_published_program(shared: Path, tmp_path: Path):
    voc = shared / "data/voc_mini/VOCdevkit/VOC2012"
    status = evaluate.main(
        [
            "evaluate.py",
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
    assert scores["thresholds"] == [i / 100 for i in range(100)]
    for position in (0, 17, 40, 59, 80, 99):
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
    assert both["miou"] == scores["miou"] and len(both["miou_curve"]) == 100


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
        ("ignored", r"image3\.png: .* found 2 pixels of value 255"),
        ("truth index", r"0 to 3 .*found 4 in .*gt.image3\.png"),
        ("truncated", r"image3\.png"),
        ("maps", "found CAM files: add --threshold or --curve"),
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


def test_lists_as_others_write_them(folders: Path):
    expected = None
    names = [f"{name}.jpg" for name in IDS]
    for text in ("\n".join(IDS), "\ufeff" + "\r\n".join(names), "\n".join(f"{n} 1" for n in IDS)):
        (folders / "list.txt").write_bytes(text.encode())
        assert evaluate.main(command(folders)) == 0
        expected = expected or (folders / "out.json").read_text()
        assert (folders / "out.json").read_text() == expected
    (folders / "list.txt").write_bytes("\n".join(IDS).encode("utf-16"))
    assert evaluate.main(command(folders)) == 0


def test_ids_with_blanks_and_in_subfolders_are_scored(folders: Path):
    for kind, suffix in (("gt", ".png"), ("pred/masks", ".png"), ("maps/cams", ".npz")):
        (folders / kind / "cam 1").mkdir()
        for number, name in enumerate(IDS):
            new = ("scan", f"scan {number}", f"cam 1/{name}")[min(number, 2)]
            (folders / kind / f"{name}{suffix}").rename(folders / kind / f"{new}{suffix}")
    lines = ["scan", "scan 1", *(f"cam 1/{name}.jpg" for name in IDS[2:])]
    original = draw_folders(folders / "as before")
    (folders / "list.txt").write_text("\n".join(lines))
    scores = []
    for where in (original, folders):
        assert evaluate.main(command(where)) == 0
        assert evaluate.main(command(where, "--curve", pred=str(where / "maps"))) == 0
        scores.append((where / "out.json").read_text())
    assert scores[0] == scores[1]


def polyps(folders: Path, prediction: int) -> dict[str, str]:
    """Masks of one class, marked by 255, and predictions that are shifted by a row."""
    (folders / "classes.txt").write_text("polyp\n")
    for name in IDS:
        truth = np.zeros((9, 7), np.uint8)
        truth[2:6, 1:5] = 255
        predicted = np.roll(truth, 1, axis=0) // 255 * prediction
        (folders / f"gt/{name}.png").write_bytes(encode_mask(truth))
        (folders / f"pred/masks/{name}.png").write_bytes(encode_mask(predicted.astype(np.uint8)))
    return {"classes": str(folders / "classes.txt")}


@pytest.mark.parametrize("prediction", [1, 255])
def test_masks_of_zero_and_255(folders: Path, prediction: int, capsys: pytest.CaptureFixture[str]):
    changes = polyps(folders, prediction)
    assert evaluate.main(command(folders, **changes)) == 2
    assert "--foreground 255" in capsys.readouterr().err
    assert evaluate.main(command(folders, "--foreground=255", **changes)) == 0
    scores = json.loads((folders / "out.json").read_text())
    assert scores["iou"]["polyp"] == pytest.approx(12 / 20)
    assert scores["iou"]["background"] == pytest.approx(43 / 51)
    assert evaluate.main(command(folders, "--foreground=255", classes="voc")) == 2
    assert "found 20: leave foreground out" in capsys.readouterr().err
    assert evaluate.main(command(folders, "--foreground=128", **changes)) == 2
    assert "value 255" in (said := capsys.readouterr().err) or "255 (ignore)" in said


def test_ground_truth_without_classes_has_no_score(
    folders: Path, capsys: pytest.CaptureFixture[str]
):
    for name in IDS:
        for kind, value in (("gt", 0), ("pred/masks", 0)):
            mask = np.full((9, 7), value, np.uint8)
            mask[0] = 255 if kind == "gt" else 0
            (folders / kind / f"{name}.png").write_bytes(encode_mask(mask))
    for more in ((), ("--curve",)):
        pred = {"pred": str(folders / "maps")} if more else {}
        assert evaluate.main(command(folders, *more, **pred)) == 2
        assert "found only background and 255 (ignore)" in capsys.readouterr().err


@pytest.mark.parametrize("public", ["npz", "seam"])
def test_maps_up_to_255_are_refused(folders: Path, public: str, capsys: pytest.CaptureFixture[str]):
    (folders / "large").mkdir()
    for name in IDS:
        with np.load(folders / f"maps/cams/{name}.npz") as arrays:
            keys, cam = arrays["keys"], arrays["cam"].astype(np.float32) * 255
        if public == "seam":
            write_seam_cams(folders / f"large/{name}.npy", keys, cam)
        else:
            write_cams(folders / f"large/{name}.npz", keys, cam)
    assert evaluate.main(command(folders, "--curve", pred=str(folders / "large"))) == 2
    assert "expected scores of 0 to 1, found" in capsys.readouterr().err


def test_a_threshold_that_no_map_reaches_is_refused(
    folders: Path, capsys: pytest.CaptureFixture[str]
):
    assert evaluate.main(command(folders, "--threshold=1.7", pred=str(folders / "maps"))) == 2
    assert "expected a threshold from 0 to 1, as maps have, found 1.7" in capsys.readouterr().err


def test_the_background_of_labelme_is_no_class(folders: Path):
    assert evaluate.main(command(folders)) == 0
    scores = (folders / "out.json").read_text()
    (folders / "classes.txt").write_text("\n".join(["__ignore__", "_background_", *CLASSES]))
    assert evaluate.main(command(folders)) == 0
    assert (folders / "out.json").read_text() == scores


def test_the_program_starts_without_jax():
    code = "import sys, wsss_jax.evaluate; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
