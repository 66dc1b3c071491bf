"""Augmentation: sizes, flip, crop; image, mask and scores stay together."""

import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.toys.pictures import (
    difference,
    noise,
    pil_bicubic,
    quick,
    seeds,
    sides,
    slow_jitter,
    smooth,
)
from wsss_jax.data.augment import Augment, resize_image, resize_mask, sampled
from wsss_jax.data.images import decode_image
from wsss_jax.errors import UserError

# Changes nothing but the size, unless a field says otherwise.
PLAIN = Augment(crop=32, long_side=(), flip=0.0, jitter_p=0.0)


def augmented(augment: Augment, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator):
    """The crop of an image as the loader makes it, where it shows the image, and the mask's."""
    placement = augment.place((image.shape[0], image.shape[1]), rng)
    part = augment.recolor(placement.part(image), sampled(image), rng)
    return *placement.paste(part), placement.mask(mask)


def labeled(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A mask, and an image that shows its values, 40 apart."""
    small = np.random.default_rng(seed).integers(0, 6, (2, 2)).astype(np.uint8)
    mask = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.repeat(mask[..., None] * 40 + 20, 3, axis=-1).astype(np.uint8), mask


def photographs(shared, count: int) -> list[np.ndarray]:
    folder = shared / "data" / "voc_mini" / "VOCdevkit" / "VOC2012" / "JPEGImages"
    paths = sorted(folder.glob("*.jpg"))[:count]
    if not paths:
        pytest.skip(f"no photographs in {folder}")
    return [decode_image(path.read_bytes(), path.name) for path in paths]


# Resizing


@quick
@given(sides, sides, sides, sides, seeds)
def test_window_of_a_resize_is_part_of_the_whole(height, width, new_height, new_width, seed):
    image, rng = smooth(height, width, seed), np.random.default_rng(seed)
    top, left = int(rng.integers(new_height)), int(rng.integers(new_width))
    rows = slice(top, int(rng.integers(top + 1, new_height + 1)))
    cols = slice(left, int(rng.integers(left + 1, new_width + 1)))
    window = resize_image(image, new_height, new_width, rows, cols)
    # Each of the two passes may round one level apart.
    assert difference(window, pil_bicubic(image, new_height, new_width)[rows, cols]).max() <= 2


@quick
@given(sides, sides, sides, sides, seeds)
def test_whole_resize_and_mask_resize_are_those_of_pil(height, width, new_height, new_width, seed):
    image = noise(height, width, seed)
    expected = pil_bicubic(image, new_height, new_width)
    np.testing.assert_array_equal(resize_image(image, new_height, new_width), expected)
    mask = image[..., 0]
    nearest = Image.fromarray(mask).resize((new_width, new_height), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(resize_mask(mask, new_height, new_width), np.asarray(nearest))


def test_windows_of_photographs_hardly_differ(shared):
    for image in photographs(shared, 4):
        height, width = (round(n * 1.37) for n in image.shape[:2])
        window = resize_image(image, height, width, slice(11, 350), slice(31, 460))
        wrong = difference(window, pil_bicubic(image, height, width)[11:350, 31:460])
        assert wrong.max() <= 2 and wrong.mean() < 0.01


def test_long_side_is_uniform_with_both_ends_and_keeps_the_aspect():
    rng, augment = np.random.default_rng(0), Augment(long_side=(40, 44))
    sizes = [augment.place((30, 40), rng).size for _ in range(300)]
    counts = np.bincount([width for _, width in sizes], minlength=45)[40:]
    assert counts.sum() == 300 and counts.min() > 35
    assert all(height == round(width * 0.75) for height, width in sizes)
    assert Augment(long_side=(80, 80)).place((40, 1), rng).size == (80, 2)


def test_random_scale_changes_both_sides_by_one_factor():
    rng, augment = np.random.default_rng(0), Augment(long_side=(), scale=(0.5, 1.5))
    heights = []
    for _ in range(100):
        height, width = augment.place((100, 60), rng).size
        assert abs(height * 0.6 - width) <= 1
        heights.append(height)
    assert 50 <= min(heights) < 60 and 140 < max(heights) <= 150


def test_without_ranges_the_size_stays():
    augment = Augment(long_side=(), scale=())
    assert augment.place((31, 47), np.random.default_rng(0)).size == (31, 47)


# Flip and crop


@quick
@given(sides, sides, seeds)
def test_flip_turns_around_all_that_belongs_to_the_image(height, width, seed):
    image = noise(height, width, seed)
    planes = image.transpose(2, 0, 1).astype(np.float16)
    crop = max(height, width)
    as_it_is, flipped = (
        dataclasses.replace(PLAIN, crop=crop, flip=p, random_position=False) for p in (0.0, 1.0)
    )
    one, other = (a.place((height, width), np.random.default_rng(0)) for a in (as_it_is, flipped))
    np.testing.assert_array_equal(other.part(image), one.part(image)[:, ::-1])
    mask = one.mask(image[..., 1])
    np.testing.assert_array_equal(other.mask(image[..., 1])[:, :width], mask[:, :width][:, ::-1])
    scores = one.planes(planes)
    np.testing.assert_array_equal(
        other.planes(planes)[:, :, :width], scores[:, :, :width][..., ::-1]
    )
    np.testing.assert_array_equal(scores[1][mask != 255], mask[mask != 255])
    assert not scores[:, height:].any() and not scores[:, :, width:].any()


def test_planes_are_resized_bilinearly():
    planes = np.linspace(0, 1, 8, dtype=np.float32)[None, None].repeat(4, 1)
    augment = dataclasses.replace(PLAIN, crop=16, long_side=(16, 16), random_position=False)
    crop = augment.place((4, 8), np.random.default_rng(0)).planes(planes)
    expected = np.interp((np.arange(16) + 0.5) / 2 - 0.5, np.arange(8), planes[0, 0])
    np.testing.assert_allclose(crop[0, :8], np.tile(expected, (8, 1)), atol=1e-6)
    assert not crop[0, 8:].any()


@quick
@given(sides, sides, st.integers(1, 60), seeds, st.booleans())
def test_crop_shows_a_window_and_says_where(height, width, size, seed, random):
    # Every pixel holds its own coordinates (plus one, so that no pixel looks like padding).
    y, x = np.mgrid[1 : height + 1, 1 : width + 1].astype(np.uint8)
    image = np.stack([y, x, np.full_like(x, 7)], axis=-1)
    augment = dataclasses.replace(PLAIN, crop=size, random_position=random)
    crop, valid, mask = augmented(augment, image, y, np.random.default_rng(seed))
    rows, cols = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    assert len(rows) == min(height, size) and len(cols) == min(width, size)
    np.testing.assert_array_equal(valid, np.outer(valid.any(1), valid.any(0)))
    np.testing.assert_array_equal(valid, crop[..., 2] == 7)
    assert (crop[~valid] == 0).all() and (mask[~valid] == 255).all()
    np.testing.assert_array_equal(mask[valid], crop[valid][:, 0])
    # One contiguous window in the image's own order.
    window = crop[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].astype(int)
    assert (np.diff(window[..., 0], axis=0) == 1).all()
    assert (np.diff(window[..., 1], axis=1) == 1).all()
    if not random:
        assert rows[0] == 0 and cols[0] == 0
        assert window[0, 0, 0] - 1 == max(0, height - size) // 2


@pytest.mark.parametrize("height, size, positions", [(9, 6, 4), (6, 9, 4), (6, 6, 1)])
def test_every_position_of_a_crop_is_equally_likely(height, size, positions):
    rng, image = np.random.default_rng(1), np.arange(1, 10, dtype=np.uint8)[:height, None, None]
    image = np.broadcast_to(image, (height, 1, 3)).copy()
    augment = dataclasses.replace(PLAIN, crop=size)
    crops = [
        augmented(augment, image, image[..., 0], rng)[0][..., 0].max(1).tobytes()
        for _ in range(400)
    ]
    counts = [crops.count(crop) for crop in set(crops)]
    assert len(counts) == positions
    assert min(counts) > 0.7 * 400 / positions


# All together


@quick
@given(st.integers(60, 120), st.integers(60, 120), seeds)
def test_image_and_mask_stay_aligned(height, width, seed):
    image, mask = labeled(height, width, seed)
    scaled = Augment(crop=48, long_side=(), scale=(0.5, 1.5), jitter_p=0.0)
    sided = Augment(crop=48, long_side=(45, 90), jitter_p=0.0)
    for augment in (scaled, sided):
        crop, valid, mask_crop = augmented(augment, image, mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(mask_crop == 255, ~valid)
        # Away from the borders of the labels, where bicubic mixes them (a border may be just
        # outside the crop).
        around = np.ones((7, 7))
        inner = (cv2.dilate(mask_crop, around) == cv2.erode(mask_crop, around)) & valid
        inner[:3], inner[-3:], inner[:, :3], inner[:, -3:] = False, False, False, False
        expected = mask_crop[inner].astype(int) * 40 + 20
        assert inner.any()
        assert difference(crop[inner], expected[:, None]).max() <= 1


def test_everything_off_shows_the_image_itself():
    image = noise(20, 30)
    plain = dataclasses.replace(PLAIN, random_position=False)
    crop, valid, _ = augmented(plain, image, image[..., 0], np.random.default_rng(0))
    assert valid.sum() == 600
    np.testing.assert_array_equal(crop[:20, :30], image)


def test_same_generator_same_result_and_inputs_are_untouched():
    image, mask = labeled(50, 60)
    before = image.copy(), mask.copy()
    augment = Augment(crop=40, long_side=(40, 70), grayscale_p=0.5, hsv=10)
    for seed in range(5):
        first = augmented(augment, image, mask, np.random.default_rng(seed))
        second = augmented(augment, image, mask, np.random.default_rng(seed))
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize("field", ["flip", "jitter_p", "grayscale_p"])
def test_probabilities_count(field):
    image, mask = smooth(32, 32), np.zeros((32, 32), np.uint8)
    augment = dataclasses.replace(PLAIN, **{field: 0.25})
    rng = np.random.default_rng(0)
    changed = sum((augmented(augment, image, mask, rng)[0] != image).any() for _ in range(400))
    assert 70 <= changed <= 130


def test_augment_agrees_with_the_published_order_on_photographs(shared):
    """Resize, flip, jitter and crop by PIL, on the whole image, with the same draws."""
    strengths: dict[str, Any] = dict(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
    for seed, image in enumerate(photographs(shared, 6)):
        crop, valid, _ = augmented(Augment(), image, image[..., 0], np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        long_side = rng.integers(448, 768, endpoint=True)
        height, width = (round(n * long_side / max(image.shape)) for n in image.shape[:2])
        offsets = [int(rng.integers(abs(n - 448), endpoint=True)) for n in (height, width)]
        whole = pil_bicubic(image, height, width)
        flipped = rng.random() < 0.5
        rng.random()
        whole = slow_jitter(whole, rng, strengths)
        top, left = (o if n >= 448 else 0 for o, n in zip(offsets, (height, width), strict=True))
        window = whole[top : top + 448, left : left + 448]
        window = window[:, ::-1] if flipped else window
        top, left = (0 if n >= 448 else o for o, n in zip(offsets, (height, width), strict=True))
        expected = np.zeros((448, 448, 3), np.uint8)
        expected[top : top + window.shape[0], left : left + window.shape[1]] = window
        assert valid.sum() == window.shape[0] * window.shape[1]
        assert difference(crop, expected).mean() < 1.5


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(scale=(0.5, 1.5)), "long_side or scale, found both"),
        (dict(long_side=(768, 448)), r"0 < low <= high in long_side, found \(768, 448\)"),
        (dict(long_side=(), scale=(0.0, 1.0)), "0 < low <= high in scale"),
        (dict(flip=1.5), r"flip from 0 to 1, found 1\.5"),
        (dict(hue=0.6), r"hue from 0 to 0\.5, found 0\.6"),
        (dict(contrast=-0.1), r"contrast of 0 or more, found -0.1"),
        (dict(crop=0), "crop of 1 or more, found 0"),
    ],
)
def test_values_out_of_range_are_refused(fields, words):
    with pytest.raises(UserError, match=rf"^train\.augment: expected {words}"):
        Augment.from_config(fields, "train.augment")


@pytest.mark.parametrize(
    "fields, words",
    [
        (
            dict(long_side=None),
            r"long_side to be \(a whole number, a whole number\) or \(\), f",
        ),
        (dict(long_side=(448.0, 768.0)), r"train\.augment\.long_side to be \(a whole number, a wh"),
        (dict(hsv=1.5), "train.augment.hsv to be a whole number, found 1.5"),
        (dict(jiter_p=0.5), "did you mean jitter_p"),
    ],
)
def test_values_of_another_type_are_refused(fields, words):
    with pytest.raises(UserError, match=words):
        Augment.from_config(fields, "train.augment")


def test_a_complete_section_is_read_as_it_was_written():
    section = Augment.defaults(crop=32, long_side=(), scale=(0.5, 1.5))
    assert set(section) == {field.name for field in dataclasses.fields(Augment)}
    assert Augment.from_config(section) == Augment(crop=32, long_side=(), scale=(0.5, 1.5))
