"""Photographs and masks of VOC-shaped folders: turned, of 16 bits, in other formats."""

import hashlib
import io
import os

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.toys.devkits import IDS, Devkit, objects_mask
from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask, encode_mask


def test_mask_of_another_size(devkit: Devkit) -> None:
    devkit.mask(IDS[1]).write_bytes(encode_mask(objects_mask((), 16, 12)))
    message = devkit.refuse()
    assert "16 x 12" in message and "12 x 16" in message and str(devkit.mask(IDS[1])) in message


def test_mask_of_colors_or_unknown_classes(devkit: Devkit) -> None:
    with Image.open(devkit.mask(IDS[2])) as mask:
        colors = mask.convert("RGB")
    colors.save(devkit.mask(IDS[2]))
    assert "RGB pixels" in devkit.refuse() and str(devkit.mask(IDS[2])) in devkit.refuse()
    devkit.mask(IDS[2]).write_bytes(encode_mask(objects_mask((21,))))
    assert "found 21" in devkit.refuse() and str(devkit.mask(IDS[2])) in devkit.refuse()


@pytest.mark.parametrize(
    "suffix", [".Jpg", ".JPEG", ".png", ".pNg", ".tif", ".TIFF", ".webp", ".bmp"]
)
def test_photographs_in_other_formats(devkit: Devkit, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    devkit.image(IDS[0]).unlink()
    path = devkit.image(IDS[0]).with_suffix(suffix)
    Image.fromarray(pixels).save(path, lossless=True)
    record = devkit.open()[0]
    assert record["image"] == path.read_bytes()
    image = decode_image(record["image"], "x")
    if "jp" not in suffix.lower():
        np.testing.assert_array_equal(image, pixels)


def turned_jpeg(pixels: np.ndarray, orientation: int) -> bytes:
    """A JPEG of pixels that viewers turn by its EXIF orientation."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_photographs_are_turned_like_their_masks(
    devkit: Devkit, orientation: int, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[8:24, 16:40] = 255
    data = turned_jpeg(stored, orientation)
    with Image.open(io.BytesIO(data)) as image:
        as_shown = np.array(ImageOps.exif_transpose(image))[..., 0] > 128
    devkit.image(IDS[0]).write_bytes(data)
    devkit.mask(IDS[0]).write_bytes(encode_mask(as_shown.astype(np.uint8)))
    devkit.list("train", IDS[0])
    record = devkit.open()[0]
    assert "1 images of train are turned as their EXIF" in capsys.readouterr().err
    assert record["segmentation"] is not None
    assert record["size"] == as_shown.shape
    bright = decode_image(record["image"], "x")[..., 0] > 128
    mask = decode_mask(record["segmentation"], "x", 20) == 1
    assert (bright & mask).sum() / (bright | mask).sum() == 1
    if orientation >= 5:
        devkit.mask(IDS[0]).write_bytes(encode_mask((stored[..., 0] > 0).astype(np.uint8)))
        message = devkit.refuse()
        assert f"EXIF orientation ({orientation}) exchanges width and height" in message


def test_the_digest_knows_what_is_done_to_pixels(devkit: Devkit) -> None:
    """The digests of usual images are those of version 1.2.0 of the records."""
    devkit.list("train", IDS[0])
    first = devkit.open()
    parts = (IDS[0].encode(), devkit.image(IDS[0]).read_bytes(), first[0]["label"].tobytes())
    digest = hashlib.sha256("\n".join(VOC_CLASSES).encode())
    mask = first[0]["segmentation"]
    for part in (*parts, mask or b""):
        digest.update(len(part).to_bytes(8, "little") + part)
    assert first.digest == digest.hexdigest()
    data = turned_jpeg(np.zeros((12, 16, 3), np.uint8), 3)
    devkit.image(IDS[0]).write_bytes(data)
    digest = hashlib.sha256("\n".join(VOC_CLASSES).encode())
    for part in (parts[0], data, parts[2], mask or b""):
        digest.update(len(part).to_bytes(8, "little") + part)
    assert devkit.open().digest != digest.hexdigest()


def test_sixteen_bits_are_scaled_by_what_the_image_uses(
    devkit: Devkit, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.linspace(0, 4095, 12 * 16).astype(np.uint16).reshape(12, 16)
    devkit.image(IDS[0]).unlink()
    Image.fromarray(values).save(devkit.image(IDS[0]).with_suffix(".png"))
    record = devkit.open()[0]
    noted = capsys.readouterr().err
    assert f"use 12 of them ({IDS[0]}); they are divided by 16" in noted
    image = decode_image(record["image"], "x")
    assert len(np.unique(image)) > 150, "levels of gray"
    np.testing.assert_array_equal(image[..., 1], values >> 4)


def test_masks_of_zero_and_255(devkit: Devkit) -> None:
    classes = devkit.folder / "classes.txt"
    classes.write_text("polyp\n")
    for name in IDS:
        pixels = np.zeros((12, 16), np.uint8)
        pixels[2:6, 3:9] = 255
        devkit.mask(name).write_bytes(encode_mask(pixels))
    assert "set --config.data.foreground=255" in devkit.refuse(classes=str(classes))
    options: dict = {"classes": str(classes), "foreground": 255}
    record = devkit.open(**options)[0]
    assert record["label"].tolist() == [1] and record["segmentation"] is not None
    mask = decode_mask(record["segmentation"], "x", 1)
    np.testing.assert_array_equal(mask[2:6, 3:9], 1)
    assert mask.sum() == 24
    assert "found 20: leave foreground out" in devkit.refuse(foreground=255)
    pixels[0, 0] = 1
    devkit.mask(IDS[2]).write_bytes(encode_mask(pixels))
    assert "expected 0 and 255 (the foreground), found 1" in devkit.refuse(**options)


def test_images_that_are_no_files(devkit: Devkit) -> None:
    devkit.image(IDS[0]).unlink()
    os.mkfifo(devkit.image(IDS[0]))
    assert "found a pipe, device or folder" in devkit.refuse()
    devkit.image(IDS[0]).unlink()
    devkit.image(IDS[0]).symlink_to("/dev/zero")
    assert "found a pipe, device or folder" in devkit.refuse()
    devkit.image(IDS[0]).unlink()
    devkit.image(IDS[0]).mkdir()
    assert str(devkit.image(IDS[0])) in devkit.refuse()
