"""MS COCO 2014 in miniature."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.preparing.sources import save
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask
from wsss_jax.prepare import main

SQUARE = [0.0, 0.0, 10.0, 0.0, 10.0, 10.0, 0.0, 10.0]  # 10 x 10 pixels at the corner
SMALL = [2.0, 2.0, 5.0, 2.0, 5.0, 5.0, 2.0, 5.0]
CROWD = {"size": [12, 20], "counts": [12 * 15, 12 * 5]}  # the last five columns


def annotation(number: int, image: int, category: int, area: float, shape: Any) -> dict[str, Any]:
    crowd = int(isinstance(shape, dict))
    return {
        **{"id": number, "image_id": image, "category_id": category, "iscrowd": crowd},
        **{"area": area, "bbox": [0, 0, 1, 1], "segmentation": shape},
    }


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two images of train with objects and one without, one of val; categories 1, 3 and 90."""
    source = tmp_path / "coco"
    (source / "annotations").mkdir(parents=True)
    annotations = {
        "train": [
            annotation(1, 9, 90, 100.0, [SQUARE]),
            annotation(2, 9, 3, 9.0, [SMALL]),
            annotation(3, 9, 1, 60.0, CROWD),
            annotation(4, 25, 3, 100.0, [SQUARE, SMALL]),
        ],
        "val": [annotation(5, 42, 1, 9.0, [SMALL])],
    }
    names = {"train": (9, 25, 30), "val": (42,)}
    for split, images in names.items():
        content = {
            "images": [
                {"id": n, "file_name": file(split, n), "height": 12, "width": 20} for n in images
            ],
            "annotations": annotations[split],
            "categories": [
                {"id": n, "name": name} for n, name in ((90, "brush"), (1, "person"), (3, "car"))
            ],
        }
        path = source / f"annotations/instances_{split}2014.json"
        path.write_text(json.dumps(content))
        for n in images:
            save(source / f"{split}2014" / file(split, n), n, orientation=6 if n == 25 else 1)
    return source


def file(split: str, number: int) -> str:
    return f"COCO_{split}2014_{number:012}.jpg"


def mask(out: Path, name: str) -> np.ndarray:
    path = out / "SegmentationClass" / f"{Path(name).stem}.png"
    return decode_mask(path.read_bytes(), name, 3)


@pytest.mark.parametrize("crowds", ("class", "ignore"))
def test_masks_labels_and_lists(crowds: str, coco: Path, tmp_path: Path):
    out = tmp_path / "out"
    arguments = ["x.py", "coco14", str(coco), f"--out={out}", "--partial", f"--crowds={crowds}"]
    assert main(arguments) == 0
    expected = np.zeros((12, 20), np.uint8)
    expected[:10, :10] = 3
    expected[2:5, 2:5] = 2  # The smaller object covers the larger one.
    expected[:, 15:] = 1 if crowds == "class" else 255
    assert np.array_equal(mask(out, file("train", 9)), expected)
    assert (out / "classes.txt").read_text().split() == ["person", "car", "brush"]
    lists = out / "ImageSets/Segmentation"
    first, second = "COCO_train2014_000000000009", "COCO_train2014_000000000025"
    assert (lists / "train.txt").read_text().split() == [first, second]  # 30 has no object
    assert (lists / "val.txt").read_text().split() == ["COCO_val2014_000000000042"]
    rows = (out / "labels.csv").read_text().splitlines()[1:]
    assert rows[0] == f'"{first}","person","car","brush"' and rows[1] == f'"{second}","car"'
    assert (out / f"JPEGImages/{first}.jpg").samefile(coco / "train2014" / file("train", 9))
    assert main(["x.py", "verify", str(out)]) == 0


def test_images_with_an_orientation_stay_as_their_masks(coco: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert main(["x.py", "coco14", str(coco), f"--out={out}", "--partial"]) == 0
    written = (out / "JPEGImages" / file("train", 25)).with_suffix(".png").read_bytes()
    with Image.open(coco / "train2014" / file("train", 25)) as image:
        stored = np.asarray(image)
    assert np.array_equal(decode_image(written, ""), stored)
    expected = np.zeros((12, 20), np.uint8)
    expected[:10, :10] = 2
    assert np.array_equal(mask(out, file("train", 25)), expected)


def test_what_is_wrong_is_told_at_once(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (coco / "val2014" / file("val", 42)).unlink()
    path = coco / "annotations/instances_train2014.json"
    path.write_text(path.read_text().replace('"height": 12', '"height": 13', 1))
    assert main(["x.py", "coco14", str(coco), f"--out={tmp_path / 'out'}"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    for part in (
        "train: 2, not 82,081, val: 1, not 40,137",
        "another number of classes than 80: 1 (3 classes)",
        "COCO_train2014_000000000009.jpg (20 x 12, not 20 x 13)",
        "COCO_val2014_000000000042.jpg (missing)",
    ):
        assert part in message
    assert not (tmp_path / "out").exists()
    path.unlink()
    assert main(["x.py", "coco14", str(coco), f"--out={tmp_path / 'out'}"]) == 2
    assert "unpack COCO's files of 2014 there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"category_id": 90', '"category_id": 91'),
        ('"category_id": 90', '"category": 90'),
        ('"height": 12', '"height": 1e999'),
        ('"id": 90', '"id": "90"'),
        ('"images"', '"pictures"'),
        ('"annotations"', '"a": ' + "[" * 100_000 + ', "annotations"'),
    ],
)
def test_annotations_of_another_form_are_one_line(
    old: str, new: str, coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = coco / "annotations/instances_train2014.json"
    path.write_text(path.read_text().replace(old, new, 1))
    assert main(["x.py", "coco14", str(coco), f"--out={tmp_path / 'out'}", "--partial"]) == 2
    assert f"expected COCO's annotations of objects in {path}" in capsys.readouterr().err
