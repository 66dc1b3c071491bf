"""Masks of another stage as what a segmentation network learns from."""

from pathlib import Path

import numpy as np
import pytest

from wsss_jax.data.augment import Augment
from wsss_jax.data.images import encode_mask
from wsss_jax.data.mask_labels import MaskLabels
from wsss_jax.errors import UserError


def test_a_mask_is_cut_with_its_image_and_unknown_beyond(tmp_path: Path):
    mask = np.random.default_rng(0).integers(0, 4, (10, 14)).astype(np.uint8)
    mask[2, 3] = 255
    (tmp_path / "a.png").write_bytes(encode_mask(mask))
    labels = MaskLabels(tmp_path, 3)
    whole = Augment(crop=16, long_side=None, flip=0.0, random_position=False)
    found = labels("a", (10, 14), whole.place((10, 14), np.random.default_rng(0)))["segmentation"]
    expected = np.full((16, 16), 255, np.uint8)
    expected[:10, :14] = mask
    np.testing.assert_array_equal(found, expected)
    flipped = Augment(crop=8, long_side=None, flip=1.0)
    placement = flipped.place((10, 14), np.random.default_rng(1))
    found = labels("a", (10, 14), placement)["segmentation"]
    windows = [mask[y : y + 8, x : x + 8][:, ::-1].tolist() for y in range(3) for x in range(7)]
    assert found.tolist() in windows


def test_mistakes_are_the_users(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(encode_mask(np.zeros((10, 14), np.uint8)))
    labels, whole = MaskLabels(tmp_path, 3), Augment(crop=16, long_side=None)
    placement = whole.place((10, 14), np.random.default_rng(0))
    with pytest.raises(UserError, match="15×10 pixels as the image has, found 14×10"):
        labels("a", (10, 15), placement)
    with pytest.raises(UserError, match=r"b\.png"):
        labels("b", (10, 14), placement)
    (tmp_path / "c.png").write_bytes(encode_mask(np.full((10, 14), 4, np.uint8)))
    with pytest.raises(UserError, match="class indices 0 to 3"):
        labels("c", (10, 14), placement)
