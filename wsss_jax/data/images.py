"""Decodes photographs to arrays.

OpenCV decodes photographs to the same bytes as PIL, but faster. PIL reads what OpenCV would read
differently (CMYK), and detects truncated files, whose missing part OpenCV may fill with gray.
"""

import io
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from PIL import Image

from wsss_jax.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""The suffixes of photographs, in lower case; files may have them in any case."""

UNREAD = (
    *(".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".ppm", ".pgm"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".psd"),
)
"""The suffixes of photographs that are not read, and named instead of passed over."""

CONVERT = "save it as JPEG or PNG (with ImageMagick: magick mogrify -format jpg FILE)"
"""What to do with a file of them."""

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
"""The formats that are read. PIL knows more, some of which start other programs (EPS: Ghostscript).
"""

# The last bytes of a complete file; comparing them saves a second decoding of each image.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_DAMAGED = "a truncated or damaged one"
_BYTES_IN_PIL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}  # others take 4 per pixel
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_DEPTHS = (8, 10, 12, 14, 16)  # bits of the sensors of cameras, microscopes and scanners
_EXIF_MARKS = (b"Exif\0\0", b"eXIf", b"EXIF", b"Raw profile type exif", b"tiff:Orientation")
_ORIENTATION, _BITS_PER_SAMPLE = 0x0112, 258  # tags of EXIF and of TIFF
_TURNED = 5  # from this orientation on, height and width are exchanged
_HEIF = (b"he", b"mi", b"ms")  # brands heic, heix, hevc, mif1, msf1
_MOST_MEMORY = 960 << 20
"""Bytes that decoding may take beyond three times the file's size, so that a small file cannot fill
the memory; photographs of the most pixels need less."""
_STRIP_PIXELS = 1 << 22  # pixels that are converted at once
_UNREAD = {
    b"%!PS": "an EPS file",
    b"%PDF": "a PDF file",
    b"\xff\x0a": "a JPEG XL file",
    b"\0\0\0\x0cJXL": "a JPEG XL file",
    b"\0\0\0\x0cjP": "a JPEG 2000 file",
    b"<svg": "an SVG file",
}


# These are no news for a user: images of up to twice that size are read.
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Photograph(NamedTuple):
    """A decoded photograph.

    Attributes:
      pixels: the image in RGB, as viewers show it.
      orientation: its EXIF orientation, 1 to 8; `pixels` are turned accordingly.
      bits: the bits of the file's values that the image uses; above 8, they were scaled.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    orientation: int
    bits: int


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a photograph to RGB; see `decode_photograph`."""
    return decode_photograph(data, name).pixels


def decode_photograph(data: bytes, name: str) -> Photograph:
    """Decodes a photograph to RGB.

    Gray is repeated over the channels, CMYK is converted by PIL's formula, palettes are resolved,
    and alpha is dropped. The image is turned as its EXIF orientation says. Of an animation, the
    first frame is decoded. Values of 16 bits are divided by a power of two: the image's largest
    value tells whether they have 8, 10, 12, 14 or 16 bits.

    Args:
      data: the bytes of the file (JPEG, PNG, BMP, TIFF, WebP or GIF).
      name: the name of the image in error messages, such as its path.

    Raises:
      UserError: the data are not an image, are truncated, have too many pixels, or have a pixel
        type that cannot become 8-bit RGB.
    """
    header = open_image(data, name)
    orientation = orientation_of(header, data)
    _check_memory(header, data, name, turned=orientation > 1)
    if _has_sixteen_bits(header, data):
        values = _sixteen_bits(header, data, name)
        bits = next(bits for bits in _DEPTHS if int(values.max(initial=0)) < 1 << bits)
        values >>= bits - 8
        pixels = values.astype(np.uint8)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=-1)
    else:
        bits, pixels = 8, _eight_bits(header, data, name)
    # PIL and OpenCV both turn TIFFs while they decode them.
    if orientation > 1 and header.format != "TIFF":
        pixels = _turned(pixels, orientation)
    return Photograph(pixels, orientation, bits)


def how_decoded(data: bytes) -> str:
    """Tells what is done to the pixels of a file besides decoding them, from its first bytes.

    Returns:
      A text that enters digests of data, which is empty for nearly all images.
    """
    try:
        header = open_image(data, "")
    except UserError:  # It is refused where it is decoded.
        return ""
    orientation = orientation_of(header, data)
    turned = f"orientation {orientation}" if orientation > 1 else ""
    return turned + ("16 bits" if _has_sixteen_bits(header, data) else "")


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """Returns the (height, width) of the decoded photograph, without decoding it.

    Raises:
      UserError: the data do not begin like an image, or it has too many pixels.
    """
    header = open_image(data, name)
    width, height = header.size
    turned = orientation_of(header, data) >= _TURNED and header.format != "TIFF"
    return (width, height) if turned else (height, width)


def open_image(data: bytes, name: str, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Reads the header of an image in one of `formats`; `name` is that in error messages.

    Raises:
      UserError: the data do not begin like such an image, or it has too many pixels.
    """
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        found = f"{int(pixels[0]):,} pixels" if pixels else "more pixels"
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UserError(
            f"expected an image of at most {most:,} pixels, found {found} in {name}: resize it or"
            " cut it into parts"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise _broken(name, _kind_of(data)) from error


def _check_memory(image: Image.Image, data: bytes, name: str, turned: bool) -> None:
    """Refuses an image whose decoding takes more memory than its file justifies."""
    per_pixel = 3 * (1 + turned)
    if _has_sixteen_bits(image, data):
        per_pixel += 6
    elif not _opencv_decodes(image, data):
        per_pixel += _BYTES_IN_PIL.get(image.mode, 4) * (3 if image.format == "WEBP" else 1)
    refuse_many_pixels(image.size, per_pixel, len(data), name)


def refuse_many_pixels(size: tuple[int, int], per_pixel: int, of: int, name: str) -> None:
    """Refuses an image that takes more memory than its file justifies.

    Args:
      size: its width and height.
      per_pixel: the bytes of memory that each pixel takes.
      of: the size of its file in bytes.
      name: its name in the message.

    Raises:
      UserError: it takes more than 960 MiB and three times the size of its file.
    """
    width, height = size
    needed, most = width * height * per_pixel, _MOST_MEMORY + 3 * of
    if needed > most:
        raise UserError(
            f"expected an image that is decoded in {most:,} bytes of memory, found {width} x"
            f" {height} pixels, which need {needed:,}, in {name} of {of:,} bytes: resize it or cut"
            " it into parts"
        )


def strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yields the rows of a loaded image in parts of a few megapixels, with their positions.

    Converting or copying a whole image of PIL's takes its memory several times.
    """
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // max(width, 1))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield slice(top, bottom), image.crop((0, top, width, bottom))


def _kind_of(data: bytes) -> str:
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG")):
        return _DAMAGED
    if data[4:8] == b"ftyp":
        kind = "AVIF" if data[8:11] == b"avi" else "HEIC" if data[8:10] in _HEIF else "video"
        return f"a file in {kind} format (save it as JPEG or PNG)"
    for start, kind in _UNREAD.items():
        if data.lstrip().startswith(start):
            return f"{kind} (save it as JPEG or PNG)"
    return "something else" if data else "an empty file"


def orientation_of(image: Image.Image, data: bytes) -> int:
    """Returns the EXIF orientation, 1 to 8, which is 1 without a readable one."""
    # PIL would decode a whole PNG to find EXIF data behind the pixels.
    if image.format != "TIFF" and not any(mark in data for mark in _EXIF_MARKS):
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Viewers ignore EXIF data that they cannot read, and PIL's errors are many.
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _turned(pixels: Shaped[np.ndarray, "h w 3"], orientation: int) -> Shaped[np.ndarray, "h2 w2 3"]:
    """Turns and flips a stored image as its EXIF orientation says."""
    if orientation >= _TURNED:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _has_sixteen_bits(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24] == 16
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 8) if image.format == "TIFF" else 8
    return bits == 16 or (isinstance(bits, tuple) and set(bits) == {16})


def _sixteen_bits(image: Image.Image, data: bytes, name: str) -> UInt16[np.ndarray, "h w *c"]:
    """Returns the values of an image in gray [h, w] or RGB [h, w, 3]."""
    if image.mode in _SIXTEEN_BITS:
        return np.asarray(load_image(image, name)).astype(np.uint16)
    # PIL would only keep the high byte of colors.
    load_image(open_image(data, name), name)  # finds truncated files
    values = _decoded(data, _FLAGS | cv2.IMREAD_ANYDEPTH)
    if values is None or values.dtype != np.uint16:
        raise _broken(name, "16-bit pixels of an unknown kind")
    return cv2.cvtColor(values, cv2.COLOR_BGR2RGB, dst=values)


def _eight_bits(image: Image.Image, data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    if not _opencv_decodes(image, data):
        return _decode_strictly(image, name)
    pixels = _decoded(data, _FLAGS)
    if pixels is None:
        raise _broken(name, _DAMAGED)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def _opencv_decodes(image: Image.Image, data: bytes) -> bool:
    """Returns whether OpenCV decodes an image of 8 bits as PIL does."""
    end = _ENDS.get(image.format or "")
    return end is not None and image.mode != "CMYK" and data.endswith(end)


def _decoded(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def load_image(image: Image.Image, name: str) -> Image.Image:
    """Reads the pixels of an image from `open_image`; `name` is that in error messages.

    Raises:
      UserError: the image is truncated or damaged.
    """
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise _broken(name, _DAMAGED) from error
    return image


def _decode_strictly(image: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    load_image(image, name)
    if image.mode in ("I", "F", "LAB"):
        raise UserError(
            f"expected pixels of 8 or 16 bits in gray, RGB or CMYK, found {image.mode} pixels in"
            f" {name}: save the image as RGB"
        )
    pixels = np.empty((*image.size[::-1], 3), np.uint8)
    for rows, strip in strips(image):
        pixels[rows] = np.asarray(strip.convert("RGB"))
    return pixels


def _broken(name: str, found: str) -> UserError:
    return UserError(
        f"expected an image, found {found} in {name}: replace the file or leave it out"
    )
