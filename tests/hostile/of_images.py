"""Photographs and masks of every format."""

import functools
import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tests.hostile.kind import Files, Kind, single
from tests.hostile.mutations import png_chunk
from wsss_jax.data.confidence import read_confidence
from wsss_jax.data.formats.voc_submission import mask_fault
from wsss_jax.data.images import decode_photograph, how_decoded, image_size
from wsss_jax.data.masks import VOC_PALETTE, decode_mask, encode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes
from wsss_jax.preparing.given_masks import GivenMask
from wsss_jax.preparing.photographs import look_at
from wsss_jax.preparing.problems import Problems

_SIDE = 13_300  # pixels; a square of it has few less than the most that is read


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    """Returns an image in a format of PIL's."""
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def scene(height: int = 24, width: int = 37) -> np.ndarray:
    """A picture of smooth colors."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, x + y], axis=-1).astype(np.uint8)


@functools.cache
def _photographs() -> Sequence[Files]:
    color = Image.fromarray(scene())
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a maker"
    palette, gray = color.quantize(16), color.convert("L")
    deep = scene().astype(np.uint16) * 16
    more = {"save_all": True, "append_images": [color.rotate(angle) for angle in (90, 180)]}
    jpeg = (encoded(color, "JPEG"), encoded(color, "JPEG", progressive=True))
    jpeg += (encoded(color, "JPEG", exif=exif), encoded(color.convert("CMYK"), "JPEG"))
    jpeg += (encoded(gray, "JPEG"), encoded(color, "MPO", **more))
    png = tuple(encoded(one, "PNG") for one in (color, gray, palette, color.convert("RGBA")))
    png += (encoded(color, "PNG", exif=exif), encoded(palette, "PNG", transparency=3))
    png += (encoded(gray.convert("1"), "PNG"), _sixteen(".png", deep))
    webp = (encoded(color, "WEBP", exif=exif), encoded(color, "WEBP", lossless=True))
    webp += (encoded(color, "WEBP", **more),)
    packed = ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg")
    tiff = tuple(encoded(color, "TIFF", compression=how) for how in packed)
    tiff += (encoded(palette, "TIFF"), encoded(gray.convert("1"), "TIFF", compression="group4"))
    tiff += (encoded(color, "TIFF", exif=exif), _sixteen(".tiff", deep))
    bmp = tuple(encoded(one, "BMP") for one in (color, palette, color.convert("RGBA")))
    gif = (encoded(color, "GIF"), encoded(color, "GIF", **more))
    return [
        *single("a.jpg", *jpeg, _sixteen(".png", deep[..., 0]), *gif),
        *single("a.png", *png),
        *single("a.webp", *webp),
        *single("a.tif", *tiff, _sixteen(".tiff", deep[..., 0])),
        *single("a.bmp", *bmp),
    ]


def _sixteen(suffix: str, values: np.ndarray) -> bytes:
    return cv2.imencode(suffix, values)[1].tobytes()


def _decode(path: Path) -> object:
    data = read_bytes(path)
    how_decoded(data)
    image_size(data, str(path))
    return decode_photograph(data, str(path)).pixels.shape


def _look_at(path: Path) -> object:
    """Reads a photograph as `wsss_jax.prepare` does."""
    return look_at({path.name: path}, True, Problems())


@functools.cache
def _large(kind: str, mode: str) -> bytes:
    how = {"TIFF": {"compression": "tiff_adobe_deflate" if mode != "1" else "raw"}}
    return encoded(Image.new(mode, (_SIDE, _SIDE)), kind, **how.get(kind, {}))


def many_pixels(rng: np.random.Generator) -> bytes:
    """Images of nearly as many pixels as are read, in few bytes."""
    return _large(*LARGE[int(rng.integers(len(LARGE)))])


LARGE = (
    *(("PNG", mode) for mode in ("RGB", "P", "I;16", "RGBA", "LA", "L")),
    *(("JPEG", "RGB"), ("GIF", "P"), ("BMP", "1"), ("TIFF", "1")),
    *(("TIFF", mode) for mode in ("RGB", "CMYK", "P", "I;16", "RGBA")),
)


def png_header(rng: np.random.Generator) -> bytes:
    """A header that declares what is not there."""
    size = rng.choice([0, 1, 24, 13_000, 2**16, 2**31 - 1, 2**32 - 1], 2)
    kind = rng.choice([0, 2, 3, 4, 6, 7]), rng.choice([0, 1, 2, 4, 8, 16, 32])
    head = struct.pack(">IIBBBBB", *size, kind[1], kind[0], 0, 0, int(rng.choice([0, 1, 9])))
    pixels = zlib.compress(bytes(int(rng.choice([0, 100, 10**6]))))
    chunks = [(b"IHDR", head), (b"PLTE", bytes(48)), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_text(rng: np.random.Generator) -> bytes:
    """Texts, profiles and EXIF that unpack to a lot, or are damaged."""
    whole = encoded(Image.fromarray(scene()), "PNG")
    bomb = zlib.compress(bytes(int(rng.choice([10**3, 10**8]))))
    chunk = (
        (b"zTXt", b"Raw profile type exif\0\0" + bomb),
        (b"iCCP", b"a\0\0" + bomb),
        (b"iTXt", b"a\0\1\0\0\0" + bomb),
        (b"eXIf", rng.bytes(100)),
        (b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0"),
        (b"tEXt", b"Raw profile type exif\0\nexif\n9999999999\n" + b"00" * 100),
        (b"acTL", struct.pack(">II", 2**31, 0)),
    )[int(rng.integers(7))]
    return whole[:33] + png_chunk(*chunk) + whole[33:]


def tiff_tags(rng: np.random.Generator) -> bytes:
    """Tags with counts and places that are not there."""
    values = (0, 1, 3, 8, 16, 32, 255, 10_000, 2**31, 2**32 - 1)
    tags = (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 320, 322, 323, 324, 339, 34665, 274)
    chosen = sorted(rng.choice(tags, int(rng.integers(6, len(tags))), replace=False).tolist())
    entries = b"".join(
        struct.pack(
            "<HHII",
            *(tag, int(rng.choice([1, 2, 3, 4, 5, 7, 12, 13])), int(rng.choice(values))),
            int(rng.choice(values)),
        )
        for tag in chosen
    )
    back = struct.pack("<I", int(rng.choice([0, 8])))  # to the first table: an endless chain
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(chosen)) + entries + back + bytes(200)


def jpeg_header(rng: np.random.Generator) -> bytes:
    """A frame of another size, and many scans."""
    whole = encoded(Image.fromarray(scene()), "JPEG", progressive=bool(rng.integers(2)))
    at = max(whole.find(b"\xff\xc0"), whole.find(b"\xff\xc2"))
    size = struct.pack(">HH", *(int(one) for one in rng.choice([0, 1, 9_000, 65_535], 2)))
    data = whole[: at + 5] + size + whole[at + 9 :]
    scan = data.rindex(b"\xff\xda")
    return data[:scan] + data[scan:-2] * int(rng.choice([1, 1, 500])) + b"\xff\xd9"


def gif_frames(rng: np.random.Generator) -> bytes:
    """Screens and frames of other sizes."""
    whole = bytearray(encoded(Image.fromarray(scene()), "GIF"))
    whole[6:10] = struct.pack("<HH", *(int(one) for one in rng.choice([0, 1, 13_000, 65_535], 2)))
    return bytes(whole)


def bmp_header(rng: np.random.Generator) -> bytes:
    """Headers of other sizes, depths and compressions."""
    whole = bytearray(encoded(Image.fromarray(scene()), "BMP"))
    size = rng.choice([-1, 0, 1, 13_000, -(2**31), 2**31 - 1], 2)
    whole[18:26] = struct.pack("<ii", *size)
    bits, compression = rng.choice([0, 1, 4, 8, 24, 32, 64]), rng.choice([0, 1, 2, 3, 9])
    whole[28:34] = struct.pack("<HI", int(bits), int(compression))
    return bytes(whole)


def webp_header(rng: np.random.Generator) -> bytes:
    """A canvas of another size."""
    whole = bytearray(encoded(Image.fromarray(scene()), "WEBP", exif=Image.Exif().tobytes()))
    at = whole.find(b"VP8X")
    if at > 0:
        whole[at + 12 : at + 18] = rng.bytes(6)
    return bytes(whole)


_HEADERS = (png_header, png_text, tiff_tags, jpeg_header, gif_frames, bmp_header, webp_header)


def index_mask() -> np.ndarray:
    """A mask of the class 2 with an ignored line."""
    index = np.zeros((24, 37), np.uint8)
    index[4:12, 5:30], index[12] = 2, 255
    return index


@functools.cache
def _indices() -> Sequence[Files]:
    few = np.minimum(index_mask(), 3)
    palette = Image.fromarray(few)
    palette.putpalette(VOC_PALETTE[:4].tobytes())
    return single(
        "a.png",
        encode_mask(index_mask()),
        encode_mask(index_mask(), palette=False),
        *(encoded(palette, "PNG", bits=bits) for bits in (2, 4, 8)),
    )


@functools.cache
def _masks() -> Sequence[Files]:
    two = Image.fromarray(np.where(index_mask() == 2, 255, 0).astype(np.uint8))
    return [
        *_indices(),
        *single(
            "a.png",
            encoded(two.convert("1"), "PNG"),
            *(encoded(two.convert(mode), "PNG") for mode in ("RGB", "RGBA", "LA")),
        ),
        *single("a.bmp", encoded(two, "BMP"), encoded(two.convert("RGB"), "BMP")),
        *single("a.tif", encoded(two, "TIFF"), encoded(two, "TIFF", compression="tiff_lzw")),
    ]


def _read_mask(path: Path) -> object:
    return decode_mask(read_bytes(path), str(path), 20).shape


def _read_given_mask(path: Path) -> object:
    """Reads a mask as `wsss_jax.prepare` does, as indices or as two values."""
    try:
        return GivenMask(path, 0, 0).read((24, 37), 20).shape
    except UserError:
        return GivenMask(path, 1, 255).read((24, 37), 20).shape


def _read_for_server(path: Path) -> object:
    data = read_bytes(path)
    read_confidence(path, (24, 37))
    return mask_fault(data, None, 20)


_MASK_HEADERS = (png_header, png_text, tiff_tags, bmp_header)
_MANY = 15.0
"""Seconds for images of as many pixels as are read, which take up to 5 on a quiet machine."""

KINDS = (
    Kind(
        "photographs", _photographs, _decode, (*_HEADERS * 9, many_pixels), share=2, seconds=_MANY
    ),
    Kind(
        "photographs to prepare",
        _photographs,
        _look_at,
        (*_HEADERS * 9, many_pixels),
        seconds=_MANY,
    ),
    Kind("masks", _indices, _read_mask, (*_MASK_HEADERS * 9, many_pixels), seconds=_MANY),
    Kind(
        "masks to prepare",
        _masks,
        _read_given_mask,
        (*_MASK_HEADERS * 9, many_pixels),
        seconds=_MANY,
    ),
    Kind(
        "masks to submit",
        _indices,
        _read_for_server,
        (*_MASK_HEADERS * 9, many_pixels),
        seconds=_MANY,
    ),
)
