"""COCO's masks, decoded and filled like its own tools do."""

import json
import os
import subprocess
import tracemalloc
from typing import Any

import numpy as np
import pytest

from wsss_jax.preparing.run_length import decode_runs, decode_segmentation, fill_polygon

# Reads objects, [segmentation, height, width] each, and prints their masks as lists of pixels.
_COCO = """
import json, sys
import numpy as np
from pycocotools import mask as tools
for segmentation, height, width in json.load(sys.stdin):
    if isinstance(segmentation, list):
        runs = tools.merge(tools.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        runs = tools.frPyObjects(segmentation, height, width)
    else:
        runs = segmentation
    print(json.dumps(np.flatnonzero(tools.decode(runs)).tolist()))
"""


def _by_coco(objects: list[Any]) -> list[np.ndarray]:
    """The masks of objects by pycocotools, in the environment of PyTorch's comparisons."""
    python = os.environ.get("WSSS_TORCH_PYTHON", "")
    if not python or subprocess.run([python, "-c", "import pycocotools"], check=False).returncode:
        pytest.skip("WSSS_TORCH_PYTHON names no Python with pycocotools")
    done = subprocess.run(
        [python, "-c", _COCO], input=json.dumps(objects), capture_output=True, text=True, check=True
    )
    masks = []
    for (_, height, width), line in zip(objects, done.stdout.splitlines(), strict=True):
        mask = np.zeros(height * width, bool)
        mask[json.loads(line)] = True
        masks.append(mask.reshape(height, width))
    return masks


def _polygons(count: int) -> list[Any]:
    """Polygons of all kinds: beyond the borders, thin, crossing themselves, with equal corners."""
    rng = np.random.default_rng(0)
    objects = []
    for number in range(count):
        height, width = (int(n) for n in rng.integers(1, 60, 2))
        polygons = []
        for _ in range(1 + number % 3):
            corners = rng.uniform(-10, 70, (int(rng.integers(3, 12)), 2))
            if number % 4 == 0:
                corners = np.round(corners)
            if number % 5 == 0:
                corners = np.repeat(corners, 2, axis=0)
            if number % 7 == 0:
                corners[:, 0] = corners[0, 0] + 0.3 * (corners[:, 0] > 30)
            polygons.append(np.round(corners, 2).ravel().tolist())
        objects.append([polygons, height, width])
    return objects


def test_polygons_equal_cocos():
    objects = _polygons(300)
    for (polygons, height, width), mask in zip(objects, _by_coco(objects), strict=True):
        assert np.array_equal(decode_segmentation(polygons, height, width), mask), polygons


def test_a_rectangle_and_a_triangle():
    mask = fill_polygon([1, 2, 5, 2, 5, 4, 1, 4], 6, 8)
    expected = np.zeros((6, 8), bool)
    expected[2:4, 1:5] = True
    assert np.array_equal(mask, expected)
    triangle = fill_polygon([0, 0, 8, 0, 0, 8], 8, 8)
    assert np.array_equal(triangle, np.add.outer(np.arange(8), np.arange(8)) < 7)
    assert not fill_polygon([20, 20, 30, 20, 30, 30], 8, 8).any()


def _compressed(runs: list[int]) -> str:
    """Compresses runs, the obvious way."""
    text = ""
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        more = True
        while more:
            group = value & 31
            value >>= 5
            more = value != (-1 if group & 16 else 0)
            text += chr(48 + (group | 32 if more else group))
    return text


def test_runs_equal_cocos():
    rng = np.random.default_rng(1)
    objects: list[Any] = []
    masks = []
    for number in range(40):
        height, width = (int(n) for n in rng.integers(1, 400, 2))
        mask = rng.random((height, width)) < (0.5, 0.001, 0.999)[number % 3]
        masks.append(mask)
        flat = mask.T.ravel()
        ends = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int)) != 0)
        runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
        counts: Any = _compressed(runs) if number % 2 else runs
        objects.append([{"size": [height, width], "counts": counts}, height, width])
    for (segmentation, height, width), mask in zip(objects, masks, strict=True):
        assert np.array_equal(decode_segmentation(segmentation, height, width), mask)
    for mask, by_coco in zip(masks, _by_coco(objects), strict=True):
        assert np.array_equal(mask, by_coco)


def test_what_is_no_mask():
    for counts in ([3, 4], [10, -4], "0~", "o", b"\xff"):
        with pytest.raises(ValueError, match="expected"):
            decode_runs(counts, 2, 3)
    with pytest.raises(ValueError, match="2 x 3"):
        decode_segmentation({"size": [3, 2], "counts": [6]}, 2, 3)
    with pytest.raises(ValueError, match="polygons or runs"):
        decode_segmentation(None, 2, 3)
    assert decode_runs([0, 6], 2, 3).all() and not decode_runs("6", 2, 3).any()


@pytest.mark.parametrize(
    "corners",
    [
        [0, 0, 1e9, 1, 5, 5],
        [0, 0, float("nan"), 1, 5, 5],
        [0, 0, float("inf"), 1, 5, 5],
        [0, 0, 19, 11, 5, 5] * 1000,
    ],
)
def test_an_outline_that_no_object_has_is_refused(corners: list[float]):
    tracemalloc.start()
    with pytest.raises(ValueError, match="an outline of"):
        decode_segmentation([corners], 12, 20)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_numbers_of_many_digits_are_no_runs():
    with pytest.raises(ValueError, match="too many digits"):
        decode_runs("o" * 10**5, 2, 3)
