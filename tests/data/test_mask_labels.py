"""Masks of another stage as what a segmentation network learns from."""

from pathlib import Path

import numpy as np
import pytest

from wsss_jax.data.augment import Augment
from wsss_jax.data.confidence import write_confidence
from wsss_jax.data.mask_labels import GroundTruth, MaskLabels
from wsss_jax.data.masks import encode_mask
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError


def record(name: str, size: tuple[int, int], mask: np.ndarray | None = None) -> Record:
    segmentation = None if mask is None else encode_mask(mask)
    label = np.zeros(3, np.float32)
    return Record(id=name, image=b"", size=size, label=label, segmentation=segmentation)


def test_a_mask_is_cut_with_its_image_and_unknown_beyond(tmp_path: Path):
    mask = np.random.default_rng(0).integers(0, 4, (10, 14)).astype(np.uint8)
    mask[2, 3] = 255
    (tmp_path / "a.png").write_bytes(encode_mask(mask))
    labels = MaskLabels(tmp_path, 3)
    whole = Augment(crop=16, long_side=(), flip=0.0, random_position=False)
    placement = whole.place((10, 14), np.random.default_rng(0))
    found = labels(record("a", (10, 14)), placement)
    expected = np.full((16, 16), 255, np.uint8)
    expected[:10, :14] = mask
    np.testing.assert_array_equal(found, expected)
    own = GroundTruth(3)(record("a", (10, 14), mask), placement)
    np.testing.assert_array_equal(own, expected)
    flipped = Augment(crop=8, long_side=(), flip=1.0)
    placement = flipped.place((10, 14), np.random.default_rng(1))
    found = labels(record("a", (10, 14)), placement)
    windows = [mask[y : y + 8, x : x + 8][:, ::-1].tolist() for y in range(3) for x in range(7)]
    assert found.tolist() in windows
    own = GroundTruth(3)(record("a", (10, 14), mask), placement)
    np.testing.assert_array_equal(own, found)


def test_pixels_that_are_not_sure_teach_nothing(tmp_path: Path):
    rng = np.random.default_rng(0)
    mask, sure = rng.integers(0, 4, (9, 9)).astype(np.uint8), rng.integers(0, 256, (9, 9))
    (tmp_path / "a.png").write_bytes(encode_mask(mask))
    write_confidence(tmp_path / "sure" / "a.png", sure.astype(np.uint8))
    whole = Augment(crop=9, long_side=(), flip=0.0, random_position=False)
    placement = whole.place((9, 9), np.random.default_rng(0))
    found = MaskLabels(tmp_path, 3, 0.7, tmp_path / "sure")(record("a", (9, 9)), placement)
    expected = np.where(sure / 255 < 0.7, 255, mask)
    assert 0 < (expected == 255).mean() < 1
    np.testing.assert_array_equal(found, expected)
    write_confidence(tmp_path / "sure" / "a.png", np.zeros((9, 8), np.uint8))
    with pytest.raises(UserError, match="9×9 pixels like its mask, found 8×9"):
        MaskLabels(tmp_path, 3, 0.7, tmp_path / "sure")(record("a", (9, 9)), placement)
    with pytest.raises(UserError, match=r"a file at .*, found none .*: make the masks again"):
        MaskLabels(tmp_path, 3, 0.7, tmp_path / "nowhere")(record("a", (9, 9)), placement)


def test_mistakes_are_the_users(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(encode_mask(np.zeros((10, 14), np.uint8)))
    labels, whole = MaskLabels(tmp_path, 3), Augment(crop=16, long_side=())
    placement = whole.place((10, 14), np.random.default_rng(0))
    with pytest.raises(UserError, match="15×10 pixels like the image, found 14×10"):
        labels(record("a", (10, 15)), placement)
    with pytest.raises(UserError, match=r"b\.png"):
        labels(record("b", (10, 14)), placement)
    (tmp_path / "c.png").write_bytes(encode_mask(np.full((10, 14), 4, np.uint8)))
    with pytest.raises(UserError, match="class indices 0 to 3"):
        labels(record("c", (10, 14)), placement)
