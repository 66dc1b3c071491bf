"""Decoding of photographs and masks."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from wsss_jax.data import images
from wsss_jax.data.images import decode_image, decode_photograph, how_decoded, image_size
from wsss_jax.data.masks import VOC_PALETTE, decode_mask, encode_mask
from wsss_jax.errors import UserError


def _scene(height: int = 24, width: int = 37) -> np.ndarray:
    """A smooth color picture, so that JPEG changes it little."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 2], axis=-1).astype(np.uint8)


def _encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _png16(array: np.ndarray) -> bytes:
    done, data = cv2.imencode(".png", array)
    assert done
    return data.tobytes()


def _refused(function: object, *arguments: object) -> str:
    assert callable(function)
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message and "expected" in message and "found" in message
    return message


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_rgb_is_exact(file_format: str) -> None:
    scene = np.where(_scene() > 100, 200, 10).astype(np.uint8)  # 8 colors: GIF keeps them
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = _encode(Image.fromarray(scene), file_format, **options)
    np.testing.assert_array_equal(decode_image(data, "x"), scene)


def test_jpeg_is_rgb_and_equals_pil() -> None:
    data = _encode(Image.fromarray(_scene()), "JPEG", quality=95)
    image = decode_image(data, "x")
    np.testing.assert_array_equal(image, np.array(Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.abs(image.astype(int) - _scene()).mean() < 5


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9])
def test_images_are_turned_as_viewers_turn_them(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = _encode(Image.fromarray(_scene()), file_format, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    found = decode_photograph(data, "x")
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.orientation == (orientation if 1 <= orientation <= 8 else 1)
    assert image_size(data, "x") == expected.shape[:2]
    assert bool(how_decoded(data)) == (found.orientation > 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # as in the program
def test_damaged_exif_data_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _encode(Image.fromarray(_scene()), "JPEG", exif=exif)
    start = data.index(b"Exif") + 10
    damaged = data[:start] + b"\xff" * 12 + data[start + 12 :]
    assert decode_image(damaged, "x").shape == (24, 37, 3)


def test_a_mask_with_an_orientation_is_refused() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = Image.fromarray(np.eye(9, dtype=np.uint8))
    assert "found orientation 6 in x" in _refused(
        decode_mask, _encode(mask, "PNG", exif=exif), "x", 1
    )


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("an EPS file", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        ("a PDF file", b"%PDF-1.4\n"),
        ("HEIC format", b"\0\0\0\x24ftypheic\0\0\0\0mif1"),
        ("AVIF format", b"\0\0\0\x20ftypavif\0\0\0\0"),
        ("an SVG file", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("something else", b"P6 2 2 255\n" + b"0" * 12),
    ],
)
def test_other_formats_are_refused_by_name(kind: str, start: bytes) -> None:
    """PIL would start Ghostscript for EPS."""
    assert f"found {kind}" in _refused(decode_image, start + b"\0" * 64, "a.jpg").replace(
        "a file in ", ""
    )
    assert kind in _refused(decode_mask, start + b"\0" * 64, "a.png", 3)


def test_too_many_pixels_are_no_damage() -> None:
    header = struct.pack(">II", 20_000, 10_000) + b"\x08\x00\x00\x00\x00"
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + chunk + struct.pack(">I", zlib.crc32(chunk))
    data += b"\0\0\0\x01IDAT\0"
    for decode in (lambda: decode_image(data, "x"), lambda: decode_mask(data, "x", 20)):
        assert "at most 178,956,970 pixels, found 200,000,000 pixels in x" in _refused(decode)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled(bits: int, suffix: str, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, (8, 9, 3)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    stored = values if channels == 3 else values[..., 0]
    data = cv2.imencode(suffix, stored)[1].tobytes()
    found = decode_photograph(data, "x")
    expected = (values[..., ::-1] if channels == 3 else values[..., :1]) >> (bits - 8)
    np.testing.assert_array_equal(found.pixels, np.broadcast_to(expected, (8, 9, 3)))
    assert found.bits == bits and how_decoded(data) == "16 bits"


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_gray_is_repeated(file_format: str) -> None:
    gray = Image.fromarray(_scene()).convert("L")
    image = decode_image(_encode(gray, file_format), "x")
    assert image.shape == (24, 37, 3)
    assert (image == image[..., :1]).all()
    assert np.abs(image[..., 0].astype(int) - np.array(gray)).max() < 10


def test_cmyk_jpeg_is_converted() -> None:
    data = _encode(Image.fromarray(_scene()).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode_image(data, "x").astype(int) - _scene()).mean() < 5


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 3)])
def test_sixteen_bits_keep_the_high_byte(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    image = decode_image(_png16(values), "x")
    high = (values >> 8).astype(np.uint8)
    expected = high[..., ::-1] if high.ndim == 3 else np.repeat(high[..., None], 3, axis=-1)
    np.testing.assert_array_equal(image, expected)
    if len(shape) == 2:
        tiff = _encode(Image.fromarray(values), "TIFF")
        np.testing.assert_array_equal(decode_image(tiff, "x"), expected)


def test_palette_and_alpha() -> None:
    scene = np.where(_scene() > 100, 200, 10).astype(np.uint8)
    palette = Image.fromarray(scene).quantize(16)
    np.testing.assert_array_equal(
        decode_image(_encode(palette, "PNG"), "x"), np.array(palette.convert("RGB"))
    )
    alpha = np.concatenate([scene, np.full((24, 37, 1), 7, np.uint8)], axis=-1)
    np.testing.assert_array_equal(decode_image(_encode(Image.fromarray(alpha), "PNG"), "x"), scene)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("kept", [0, 3, 0.3, 0.7, 0.99])
def test_truncated_is_refused(file_format: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = _encode(Image.fromarray(noise), file_format)
    count = int(kept if kept in (0, 3) else len(data) * kept)
    assert "a/b.jpg" in _refused(decode_image, data[:count], "a/b.jpg")


def test_jpeg_without_its_last_byte_is_refused() -> None:
    _refused(decode_image, _encode(Image.fromarray(_scene()), "JPEG")[:-1], "x")


def test_trailing_bytes_do_not_make_a_file_truncated() -> None:
    data = _encode(Image.fromarray(_scene()), "JPEG")
    np.testing.assert_array_equal(decode_image(data + b"\0" * 7, "x"), decode_image(data, "x"))


def test_text_and_floats_are_refused() -> None:
    _refused(decode_image, b"<html>not found</html>", "x.jpg")
    floats = Image.fromarray(np.zeros((4, 4), np.float32))
    assert "F pixels" in _refused(decode_image, _encode(floats, "TIFF"), "x.tif")


def test_damaged_png_is_refused() -> None:
    data = bytearray(_encode(Image.fromarray(_scene()), "PNG"))
    data[16:20] = b"\0\0\0\0"  # a width of 0
    assert "x.png" in _refused(decode_image, bytes(data), "x.png")


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"]))
def test_arbitrary_bytes_never_crash(content: bytes, start: bytes) -> None:
    for decode in (decode_image, lambda data, name: decode_mask(data, name, 20)):
        with pytest.raises(UserError):
            decode(start + content, "x")


@pytest.mark.parametrize("palette", [True, False])
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_mask_round_trip(palette: bool, seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    data = encode_mask(mask, palette=palette)
    np.testing.assert_array_equal(decode_mask(data, "x", None), mask)
    other = Image.open(io.BytesIO(data))
    assert other.mode == ("P" if palette else "L")
    if palette:
        np.testing.assert_array_equal(np.array(other.convert("RGB")), VOC_PALETTE[mask])
    colors = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert colors is not None
    expected = VOC_PALETTE[mask] if palette else np.repeat(mask[..., None], 3, axis=-1)
    np.testing.assert_array_equal(colors[..., ::-1], expected)


@pytest.mark.parametrize("palette", [True, False])
def test_rows_of_masks_are_not_filtered(palette: bool) -> None:
    """They are compressed in one piece, so the file is the same whatever the library's buffer."""
    mask = np.random.default_rng(0).integers(0, 21, (120, 150)).astype(np.uint8)
    data = encode_mask(mask, palette=palette)
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    rows = np.frombuffer(zlib.decompress(data[start + 4 : start + 4 + length]), np.uint8)
    np.testing.assert_array_equal(rows.reshape(120, 151)[:, 0], 0)
    np.testing.assert_array_equal(rows.reshape(120, 151)[:, 1:], mask)


def test_palette_is_that_of_voc(shared: Path) -> None:
    assert VOC_PALETTE[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert VOC_PALETTE[255].tolist() == [224, 224, 192]
    folder = shared / "data/voc_mini/VOCdevkit/VOC2012/SegmentationClass"
    path = min(folder.glob("*.png"))
    assert VOC_PALETTE.tobytes() == bytes(Image.open(path).getpalette() or [])
    mask = decode_mask(path.read_bytes(), str(path), 20)
    assert 255 in mask and mask.max() == 255 and np.unique(mask).size < 7


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_indices_of_few_bits(bits: int) -> None:
    mask = np.random.default_rng(bits).integers(0, 2**bits, (6, 16)).astype(np.uint8)
    palette = Image.fromarray(mask)
    palette.putpalette(VOC_PALETTE[: 2**bits].tobytes())
    packed = _encode(palette, "PNG", bits=bits)
    assert packed[24] == bits
    np.testing.assert_array_equal(decode_mask(packed, "x", 20), mask)
    np.testing.assert_array_equal(decode_mask(_gray_png(mask, bits), "x", 20), mask)


def _gray_png(mask: np.ndarray, bits: int) -> bytes:
    """PIL cannot write these: it stretches gray values of few bits."""
    height, width = mask.shape
    planes = (mask[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    packed = np.packbits(planes.reshape(height, width * bits), axis=-1)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), packed], axis=-1)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def test_masks_that_are_no_indices_are_refused() -> None:
    colors = Image.fromarray(_scene())
    assert "RGB pixels" in _refused(decode_mask, _encode(colors, "PNG"), "m.png", 20)
    assert "JPEG" in _refused(decode_mask, _encode(colors.convert("L"), "JPEG"), "m.png", 20)
    assert "LA pixels" in _refused(decode_mask, _encode(colors.convert("LA"), "PNG"), "m.png", 20)
    wide = np.zeros((4, 4), np.uint16)
    assert "16-bit" in _refused(decode_mask, _png16(wide), "m.png", 20)
    whole = encode_mask(np.arange(256, dtype=np.uint8).reshape(16, 16))
    for count in (0, 20, len(whole) // 2, len(whole) - 40):
        _refused(decode_mask, whole[:count], "m.png", None)


def test_index_above_the_classes_is_refused() -> None:
    mask = np.array([[0, 20, 255], [3, 21, 77]], np.uint8)
    message = _refused(decode_mask, encode_mask(mask), "m.png", 20)
    assert "21, 77" in message and "m.png" in message
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), "m.png", 77), mask)


def test_real_photographs_equal_pil(shared: Path) -> None:
    paths = sorted((shared / "data/voc_mini/VOCdevkit/VOC2012/JPEGImages").glob("*.jpg"))[::40]
    assert len(paths) > 10
    for path in paths:
        data = path.read_bytes()
        with Image.open(path) as image:
            np.testing.assert_array_equal(decode_image(data, str(path)), np.array(image))
        _refused(decode_image, data[: len(data) * 2 // 3], str(path))


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        ("CMYK", "TIFF"),
        ("RGBA", "TIFF"),
        ("P", "GIF"),
        ("L", "TIFF"),
        ("1", "TIFF"),
        ("RGB", "BMP"),
    ],
)
def test_strips_make_no_difference(
    mode: str, file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _encode(Image.fromarray(_scene()).convert(mode), file_format)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    for pixels in (1 << 22, 37 * 5, 1):
        monkeypatch.setattr(images, "_STRIP_PIXELS", pixels)
        np.testing.assert_array_equal(decode_image(data, "x"), expected)


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "WEBP"])
def test_a_small_file_cannot_fill_the_memory(
    file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"compression": "tiff_adobe_deflate"} if file_format == "TIFF" else {}
    data = _encode(Image.new("L", (300, 200)), file_format, **how)
    assert decode_image(data, "x").shape == (200, 300, 3)
    monkeypatch.setattr(images, "_MOST_MEMORY", 150_000)
    found = _refused(decode_image, data, "x")
    assert "300 x 200 pixels, which need" in found and "resize it or cut it" in found
