"""Strong views and local crops against slow versions; boxes put local crops back in their place."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.toys.pictures import difference, noise, pil_bicubic, quick, seeds, slow_jitter, smooth
from wsss_jax.data.augment import sampled
from wsss_jax.data.views import LocalCrops, StrongView
from wsss_jax.errors import UserError

STILL = StrongView(jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)


def slow_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Sums of the neighbors, weighted by a normal density; the image is reflected at its border."""
    reach = int(np.ceil(4 * sigma))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    padded = np.pad(image.astype(float), ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    height, width = image.shape[:2]
    rows = np.sum([w * padded[i : i + height] for i, w in enumerate(weights)], 0)
    return np.sum([w * rows[:, i : i + width] for i, w in enumerate(weights)], 0)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.3, 2.0])
def test_blur_is_gaussian(sigma):
    image = noise(40, 30)
    view = dataclasses.replace(STILL, blur_p=1.0, blur_sigma=(sigma, sigma))
    found = view(image, sampled(image), np.random.default_rng(0))
    # OpenCV cuts the weights off at three standard deviations.
    assert difference(found, np.rint(slow_blur(image, sigma))).max() <= 2


@quick
@given(seeds)
def test_steps_follow_each_other_with_the_drawn_strengths(seed):
    image = smooth(40, 50, seed)
    strengths: dict[str, Any] = dict(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2)
    view = StrongView(**strengths, jitter_p=1.0, grayscale_p=0.3, blur_p=0.6)
    found = view(image, image, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    rng.random()
    expected = slow_jitter(image, rng, strengths).astype(float)
    if rng.random() < 0.3:
        luma = expected @ [0.299, 0.587, 0.114]
        expected = np.repeat(luma[..., None], 3, axis=-1)
    if rng.random() < 0.6:
        expected = slow_blur(expected, rng.uniform(0.1, 2.0))
    assert difference(found, np.rint(expected)).mean() < 2


@pytest.mark.parametrize("field", ["jitter_p", "grayscale_p", "blur_p"])
def test_probabilities_count(field):
    image, rng = smooth(32, 32), np.random.default_rng(0)
    view = dataclasses.replace(STILL, **{field: 0.25}, blur_sigma=(2.0, 2.0))
    changed = sum((view(image, image, rng) != image).any() for _ in range(400))
    assert 70 <= changed <= 130


def test_a_view_leaves_the_image_as_it_is():
    image = noise(20, 20)
    before = image.copy()
    for seed in range(20):
        StrongView()(image, image, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before)


# Local crops


def padded(crop: int, rows: slice, cols: slice, seed: int = 0) -> np.ndarray:
    """A smooth image in a part of a crop, zeros around it."""
    image = np.zeros((crop, crop, 3), np.uint8)
    image[rows, cols] = np.maximum(smooth(crop, crop, seed)[rows, cols], 1)
    return image


@st.composite
def shown(draw):
    """A crop and which rows and columns of it show the image."""
    crop = draw(st.integers(8, 60))
    parts = []
    for _ in range(2):
        start = draw(st.integers(0, crop - 1))
        parts.append(slice(start, draw(st.integers(start + 1, crop))))
    return crop, *parts


@quick
@given(shown(), seeds)
def test_boxes_lie_in_the_crop_and_avoid_padding(where, seed):
    crop, rows, cols = where
    local = LocalCrops(count=6, scale=(0.02, 1.0), ratio=(0.5, 2.0))
    boxes = local.boxes(rows, cols, crop, np.random.default_rng(seed))
    for box in boxes:
        for start, length, part in ((box[0], box[2], rows), (box[1], box[3], cols)):
            assert start >= 0 and length >= 1 and start + length <= crop
            inside = part.start <= start and start + length <= part.stop
            covers = start <= part.start and part.stop <= start + length
            assert inside if length <= part.stop - part.start else covers


def test_boxes_have_the_drawn_areas_and_ratios():
    local = LocalCrops(count=2000, scale=(0.1, 0.3), ratio=(0.5, 2.0))
    whole = slice(0, 1000)
    boxes = local.boxes(whole, whole, 1000, np.random.default_rng(0)).astype(float)
    area, ratio = boxes[:, 2] * boxes[:, 3] / 1e6, boxes[:, 3] / boxes[:, 2]
    assert 0.099 < area.min() < 0.105 and 0.295 < area.max() < 0.301
    assert area.mean() == pytest.approx(0.2, abs=0.005)
    assert 0.49 < ratio.min() < 0.53 and 1.9 < ratio.max() < 2.01
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.03)  # as often wide as high
    # Every place is as likely as any other.
    for start, length in ((boxes[:, 0], boxes[:, 2]), (boxes[:, 1], boxes[:, 3])):
        share = start / (1000 - length)
        np.testing.assert_allclose(np.histogram(share, 4, (0, 1))[0], 500, atol=80)


@quick
@given(shown(), st.integers(1, 40), seeds)
def test_a_view_is_the_resized_part(where, size, seed):
    crop, rows, cols = where
    image = padded(crop, rows, cols, seed)
    local = LocalCrops(count=4, size=size, scale=(0.02, 1.0))
    views, valid, boxes = local(image, rows, cols, np.random.default_rng(seed))
    assert views.shape == (4, size, size, 3)
    if size >= crop:
        assert valid.any((1, 2)).all()
    inside = np.zeros((crop, crop), bool)
    inside[rows, cols] = True
    for view, ok, (top, left, height, width) in zip(views, valid, boxes, strict=True):
        part = image[top : top + height, left : left + width]
        # As of any mask: a pixel of the view shows what is in the middle of the pixels it covers.
        mask = Image.fromarray(inside[top : top + height, left : left + width].astype(np.uint8))
        nearest = np.asarray(mask.resize((size, size), Image.Resampling.NEAREST)).astype(bool)
        np.testing.assert_array_equal(ok, nearest)
        assert not view[~ok].any()
        if inside[top : top + height, left : left + width].all():
            np.testing.assert_array_equal(view, pil_bicubic(part, size, size))


def test_padding_does_not_darken_the_border():
    image = np.zeros((40, 40, 3), np.uint8)
    rows, cols = slice(7, 29), slice(3, 12)
    image[rows, cols] = 200
    views, valid, _ = LocalCrops(count=20, size=33, scale=(0.6, 1.0))(
        image, rows, cols, np.random.default_rng(0)
    )
    assert 0 < valid.mean() < 1
    assert (views[valid] == 200).all() and not views[~valid].any()


@pytest.mark.parametrize("size", [16, 24, 48])
def test_boxes_put_a_view_back_in_its_place(size):
    """Pixels that hold their own coordinates come back where the box says."""
    crop = 64
    y, x = np.mgrid[:crop, :crop]
    image = np.stack([3 * y, 3 * x, 0 * x], axis=-1).astype(np.uint8)
    whole = slice(0, crop)
    local = LocalCrops(count=8, size=size, scale=(0.1, 0.5))
    views, _, boxes = local(image, whole, whole, np.random.default_rng(0))
    for view, (top, left, height, width) in zip(views, boxes.astype(float), strict=True):
        rows = top + (np.arange(size) + 0.5) * height / size - 0.5
        cols = left + (np.arange(size) + 0.5) * width / size - 0.5
        inner = slice(3, -3)  # beyond the border there is nothing to interpolate with
        seen = view[inner, inner, :2].astype(float) / 3
        np.testing.assert_allclose(seen[..., 0], rows[inner, None] + 0 * seen[..., 0], atol=0.4)
        np.testing.assert_allclose(seen[..., 1], cols[None, inner] + 0 * seen[..., 1], atol=0.4)


@pytest.mark.parametrize(
    "kind, fields, words",
    [
        (StrongView, dict(hue=0.6), r"hue from 0 to 0\.5, found 0\.6"),
        (StrongView, dict(blur_p=-0.1), "blur_p from 0 to 1"),
        (StrongView, dict(blur_sigma=(0.0, 2.0)), "0 < low <= high in blur_sigma"),
        (LocalCrops, dict(count=0), "count of 1 or more, found 0"),
        (LocalCrops, dict(size=0), "size of 1 or more"),
        (LocalCrops, dict(scale=(0.5, 1.5)), "0 < low <= high <= 1 in scale"),
        (LocalCrops, dict(ratio=(2.0, 1.0)), "0 < low <= high in ratio"),
    ],
)
def test_values_out_of_range_are_refused(kind, fields, words):
    with pytest.raises(UserError, match=rf"^views: expected {words}"):
        kind.from_config(fields, "views")
