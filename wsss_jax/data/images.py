"""Decodes images and masks to arrays, and encodes masks.

OpenCV decodes photographs to the same bytes as PIL, but faster. PIL reads what OpenCV would read
differently (CMYK), detects truncated files, whose missing part OpenCV may fill with gray, and reads
masks, whose palette indices OpenCV would turn into colors.
"""

import io

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from wsss_jax.errors import UserError

IGNORE = 255
"""The mask value of pixels that belong to no class, such as VOC's object borders."""

# The last bytes of a complete file; comparing them saves a second decoding of each image.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
# Level 3 writes masks twice as fast as level 6 and 1.4 times as large (4 KB for VOC's).
_COMPRESSION = 3
_GRAY = [
    *(cv2.IMWRITE_PNG_COMPRESSION, _COMPRESSION),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
    *(cv2.IMWRITE_PNG_ZLIBBUFFER_SIZE, 2**20),  # compressed in one piece
]
_DAMAGED = "a truncated or damaged one"
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


def _palette() -> UInt8[np.ndarray, "256 3"]:
    index = np.arange(256)
    # Bit 3k + channel of the index becomes bit 7 - k of that channel (VOC devkit, colormap).
    channels = [
        sum(((index >> (3 * k + channel)) & 1) << (7 - k) for k in range(3)) for channel in range(3)
    ]
    return np.stack(channels, axis=-1).astype(np.uint8)


VOC_PALETTE = _palette()


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a photograph to RGB.

    Gray is repeated over the channels, CMYK is converted by PIL's formula, palettes are resolved,
    alpha is dropped, and 16-bit values keep their high byte. The EXIF orientation is ignored, as
    masks and published results ignore it. Of an animation, the first frame is decoded.

    Args:
      data: the bytes of the file (JPEG, PNG or anything else that PIL reads).
      name: the name of the image in error messages, such as its path.

    Raises:
      UserError: the data are not an image, are truncated, or have a pixel type that cannot become
        8-bit RGB.
    """
    header = _open(data, name)
    end = _ENDS.get(header.format or "")
    if end is None or header.mode == "CMYK" or not data.endswith(end):
        return _decode_strictly(header, name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    except cv2.error:
        image = None
    if image is None:
        raise _broken(name, _DAMAGED)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def decode_mask(data: bytes, name: str, num_classes: int | None) -> UInt8[np.ndarray, "h w"]:
    """Decodes a PNG whose palette indices or gray values are class indices.

    Args:
      data: the bytes of the file.
      name: the name of the mask in error messages.
      num_classes: the number of foreground classes C. Values are 0 (background) to C, or 255
        (ignore); None accepts every value.

    Raises:
      UserError: the data are not a PNG, are truncated, have colors, alpha or 16 bits, or hold an
        index above C.
    """
    header = _open(data, name)
    if header.format != "PNG":
        raise UserError(
            f"expected a PNG of class indices, found {header.format} in {name}: other formats lose"
            " the indices, save the mask as single-channel PNG"
        )
    bits = data[24]  # IHDR; PIL stretches gray values of fewer bits to the whole range
    if header.mode not in ("P", "L", "1") or bits == 16:
        found = "16-bit values" if bits == 16 else f"{header.mode} pixels"
        raise UserError(
            f"expected class indices (a palette or 8-bit gray PNG), found {found} in {name}:"
            " convert its colors to indices"
        )
    mask = np.array(_load(header, name), dtype=np.uint8)
    if header.mode == "L" and bits < 8:
        mask //= 255 // (2**bits - 1)
    if num_classes is not None:
        _check_indices(mask, name, num_classes)
    return mask


def encode_mask(mask: UInt8[np.ndarray, "h w"], *, palette: bool = True) -> bytes:
    """`mask` as a PNG of indices: with the VOC palette, or gray where only programs look at it.

    Rows are not filtered, for filters make flat masks larger and slower to read. PIL would filter
    gray values, and OpenCV knows no palettes, so each writes the kind that it can.
    """
    if not palette:
        done, encoded = cv2.imencode(".png", mask, _GRAY)
        if not done:
            raise ValueError(f"OpenCV could not write a mask of shape {mask.shape}")
        return encoded.tobytes()
    image = Image.fromarray(mask)
    image.putpalette(VOC_PALETTE.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_COMPRESSION)
    return file.getvalue()


def _check_indices(mask: np.ndarray, name: str, num_classes: int) -> None:
    wrong = (mask > num_classes) & (mask != IGNORE)
    if wrong.any():
        found = ", ".join(map(str, np.unique(mask[wrong])[:5]))
        raise UserError(
            f"expected class indices 0 to {num_classes} or {IGNORE}, found {found} in {name}:"
            " check the mask or the list of classes"
        )


def _open(data: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        begun = data.startswith((b"\xff\xd8\xff", b"\x89PNG"))
        found = _DAMAGED if begun else "something else" if data else "an empty file"
        raise _broken(name, found) from error


def _load(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise _broken(name, _DAMAGED) from error
    return image


def _decode_strictly(image: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    _load(image, name)
    if image.mode in _SIXTEEN_BITS:
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=-1)
    if image.mode in ("I", "F", "LAB"):
        raise UserError(
            f"expected pixels of 8 or 16 bits in gray, RGB or CMYK, found {image.mode} pixels in"
            f" {name}: save the image as RGB"
        )
    return np.array(image.convert("RGB"))


def _broken(name: str, found: str) -> UserError:
    return UserError(
        f"expected an image, found {found} in {name}: replace the file or leave it out"
    )
