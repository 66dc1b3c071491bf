"""Masks that come with photographs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.preparing.results import Prepare
from tests.preparing.sources import photographs, picture
from wsss_jax.data import images
from wsss_jax.data.masks import VOC_PALETTE
from wsss_jax.errors import UserError
from wsss_jax.preparing.given_masks import GivenMask


def test_masks_of_two_values(prepare: Prepare, tmp_path: Path):
    photographs(tmp_path / "photos", "Cat/a.jpg", "Dog/b.jpg", "Dog/c.jpg")
    mask = np.zeros((12, 20), np.uint8)
    mask[3:6] = 255
    for name, content in (("a_mask.png", mask), ("b.png", np.repeat(mask[..., None], 3, -1))):
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(content).save(tmp_path / "masks" / name)
    option = f"--masks={tmp_path / 'masks'}"
    assert "if 255 marks the object, say --foreground 255" in prepare(option, status=2)
    prepare(option, "--foreground=255", "--val=0")
    for name, index in (("Cat/a", 1), ("Dog/b", 2)):
        with Image.open(tmp_path / "out/SegmentationClass" / f"{name}.png") as image:
            assert image.getpalette()[: 3 * 3] == VOC_PALETTE[:3].ravel().tolist()  # pyright: ignore
            assert np.array_equal(np.asarray(image), mask // 255 * index)


def test_masks_that_do_not_fit_are_named(prepare: Prepare, tmp_path: Path):
    photographs(tmp_path / "photos", "Cat/a.jpg", "Dog/b.jpg", "Dog/c.jpg", "Dog/d.jpg")
    for name, content in {
        "a.png": np.full((20, 12), 1, np.uint8),
        "b.png": np.full((12, 20), 1, np.uint8),
        "c.png": np.array(picture(1)),
        "e.png": np.zeros((12, 20), np.uint8),
    }.items():
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(content).save(tmp_path / "masks" / name)
    message = prepare(f"--masks={tmp_path / 'masks'}", status=2)
    assert (
        "masks without a photograph: 1 (e.png)" in message
        and "masks that cannot be used: 3" in message
    )
    for part in ("12 x 20 in", "found Cat as well", "found colors"):
        assert part in message


def test_a_mask_of_too_many_pixels_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="expected an image of at most 200 pixels"):
        GivenMask(tmp_path / "a.png", 0, 0).read((64, 64), 2)


def test_a_mask_of_several_channels_takes_no_more_memory_than_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Image.new("LA", (64, 64)).save(tmp_path / "a.png")
    mask = GivenMask(tmp_path / "a.png", 0, 0)
    monkeypatch.setattr(images, "_MOST_MEMORY", 7 * 64 * 64)
    assert mask.read((64, 64), 2).shape == (64, 64)
    monkeypatch.setattr(
        images, "_MOST_MEMORY", 7 * 64 * 64 - 4 * (tmp_path / "a.png").stat().st_size
    )
    with pytest.raises(UserError, match="found 64 x 64 pixels, which need 28,672, in"):
        mask.read((64, 64), 2)
