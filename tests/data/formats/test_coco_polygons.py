"""Polygons cover exactly the pixels of their masks."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from wsss_jax.data.formats.coco_polygons import regions, write_polygons
from wsss_jax.preparing.run_length import decode_segmentation

# Reads a file of annotations and prints the pixels of each one as COCO's own tools see them.
_COCO = """
import json, sys
import numpy as np
from pycocotools.coco import COCO
coco = COCO(sys.argv[1])
for one in coco.loadAnns(coco.getAnnIds()):
    print("MASK", json.dumps(np.flatnonzero(coco.annToMask(one)).tolist()))
"""


def masks() -> list[np.ndarray]:
    """Noise, frames in frames, touching corners, single pixels, and everything."""
    rng = np.random.default_rng(0)
    found = [
        (rng.random((h, w)) < density).astype(np.uint8) * rng.integers(1, 4, (h, w), np.uint8)
        for h, w in ((1, 1), (1, 9), (7, 1), (13, 17), (40, 31))
        for density in (0.2, 0.5, 0.7, 0.95, 1)
    ]
    frames = np.zeros((21, 25), np.uint8)
    for depth in range(0, 10, 2):
        frames[depth : 21 - depth, depth : 25 - depth] = 1
        frames[depth + 1 : 20 - depth, depth + 1 : 24 - depth] = 2
    corner = np.eye(6, dtype=np.uint8)
    fork = np.ones((9, 11), np.uint8)
    fork[2:7, 2], fork[4:7, 5], fork[6, 2:6], fork[3, 8], fork[4, 9] = 0, 0, 0, 0, 0
    ignored = np.full((5, 6), 255, np.uint8)
    ignored[1:4, 1:3] = 7
    return [*found, frames, corner, fork, ignored]


def filled(mask: np.ndarray) -> np.ndarray:
    """A mask made of the polygons of another one; no pixel is filled twice."""
    made = np.zeros_like(mask)
    for region in regions(mask):
        pixels = decode_segmentation(region.polygons, *mask.shape)
        assert pixels.sum() == region.area and not made[pixels].any()
        rows, columns = np.nonzero(pixels)
        left, top, width, height = region.box
        assert (columns.min(), rows.min()) == (left, top)
        assert (columns.max() + 1, rows.max() + 1) == (left + width, top + height)
        made[pixels] = region.index
    return made


@pytest.mark.parametrize("number", range(len(masks())))
def test_polygons_cover_the_pixels_of_the_mask(number: int):
    mask = masks()[number]
    assert np.array_equal(filled(mask), np.where(mask == 255, 0, mask))


def test_known_shapes():
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 2:5] = 1
    mask[4, 6] = 3
    square, pixel = regions(mask)
    assert square == (1, 6, (2, 1, 3, 2), [[2, 1, 5, 1, 5, 3, 2, 3]])
    assert pixel == (3, 1, (6, 4, 1, 1), [[6, 4, 7, 4, 7, 5, 6, 5]])
    ring = np.ones((3, 3), np.uint8)
    ring[1, 1] = 0
    (region,) = regions(ring)
    assert region.area == 8 and len(region.polygons) == 2
    # Pixels that touch at a corner are two regions.
    assert [one.area for one in regions(np.eye(2, dtype=np.uint8))] == [1, 1]
    assert [*regions(np.array([[0, 255]], np.uint8))] == []


def test_a_tolerance_leaves_few_corners():
    rows, columns = np.mgrid[:60, :60]
    disc = ((rows - 30) ** 2 + (columns - 30) ** 2 < 25**2).astype(np.uint8)
    (exact,), (coarse,) = regions(disc), regions(disc, tolerance=1.5)
    assert len(coarse.polygons[0]) < len(exact.polygons[0]) / 3 and coarse.area == exact.area
    pixels = decode_segmentation(coarse.polygons, 60, 60)
    assert (pixels != (disc > 0)).sum() < 1.5 * len(exact.polygons[0])
    (pixel,) = regions(np.ones((1, 1), np.uint8), tolerance=5.0)
    assert pixel.polygons == [[0, 0, 1, 0, 1, 1, 0, 1]]


def test_the_file_is_that_of_coco(tmp_path: Path):
    path, pictures = tmp_path / "polygons.json", masks()[-8:]
    images = [(f"{n}.jpg", mask.shape, [*regions(mask)]) for n, mask in enumerate(pictures)]
    names = [f"class {n}" for n in range(1, 8)]
    count = write_polygons(path, images, names, {"description": "test"})
    content = json.loads(path.read_text())
    assert [one["id"] for one in content["annotations"]] == list(range(1, count + 1))
    assert content["categories"][6] == {"id": 7, "name": "class 7"}
    assert content["images"][1]["file_name"] == "1.jpg" and content["images"][0]["id"] == 1
    python = os.environ.get("WSSS_TORCH_PYTHON", "")
    if not python or subprocess.run([python, "-c", "import pycocotools"], check=False).returncode:
        pytest.skip("WSSS_TORCH_PYTHON names no Python with pycocotools")
    command = [python, "-c", _COCO, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.removeprefix("MASK ") for line in said.splitlines() if line.startswith("MASK ")]
    for one, line in zip(content["annotations"], lines, strict=True):
        mask = pictures[one["image_id"] - 1]
        made = np.zeros(mask.size, bool)
        made[json.loads(line)] = True
        assert made.sum() == one["area"]
        assert (mask.ravel()[made] == one["category_id"]).all()
