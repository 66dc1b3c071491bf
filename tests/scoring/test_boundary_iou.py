"""Boundary IoU against a slow, obvious version and cases that can be counted by hand."""

import math

import numpy as np
import pytest

from wsss_jax.scoring.boundary_iou import BAND, boundary_counts, boundary_scores


def slow_band(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of the mask with a pixel outside it, or outside the image, within `width`."""
    padded = np.pad(mask, width)
    band = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        window = padded[y : y + 2 * width + 1, x : x + 2 * width + 1]
        band[y, x] = not window.all()
    return band


@pytest.mark.parametrize("size", [(40, 31), (160, 120)])
def test_counts_equal_the_obvious_version(size):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 4, (2, 5, 4)).astype(np.uint8)
    prediction, truth = (
        np.kron(m, np.ones((size[0] // 5, size[1] // 4 + 1), np.uint8))[: size[0], : size[1]]
        for m in coarse
    )
    truth = truth.copy()
    truth[3:7, 5:20] = 255
    width = max(round(BAND * math.hypot(*size)), 1)
    counts = boundary_counts(prediction, truth, 4)
    for index in range(5):
        known = truth != 255
        first = slow_band((prediction == index) & known, width)
        second = slow_band((truth == index) & known, width)
        assert counts[index].tolist() == [(first & second).sum(), (first | second).sum()]
    assert counts[:4, 1].all() and not counts[4].any()


def test_a_perfect_prediction_scores_one_and_a_shifted_square_less():
    truth = np.zeros((100, 100), np.uint8)
    truth[30:70, 30:70] = 1
    perfect, mean = boundary_scores(boundary_counts(truth, truth, 2), "present")
    assert perfect[:2].tolist() == [1, 1] and math.isnan(perfect[2]) and mean == 1
    shifted = np.roll(truth, 3, axis=1)
    # Band 3 wide: the squares' bands share two rows of 37 x 3 and, of the sides, only where the
    # shifted square's band crosses the other's top and bottom bands (counted once already).
    iou, _ = boundary_scores(boundary_counts(shifted, truth, 2), "present")
    band = 40 * 40 - 34 * 34
    assert iou[1] == pytest.approx(2 * 37 * 3 / (2 * band - 2 * 37 * 3))
    mask_iou = 37 * 40 / (2 * 1600 - 37 * 40)
    assert iou[1] < mask_iou


def test_protocols():
    counts = np.array([[3, 4], [0, 0]], np.int64)
    assert boundary_scores(counts, "strict")[1] == 0.375
    assert boundary_scores(counts, "present")[1] == 0.75
