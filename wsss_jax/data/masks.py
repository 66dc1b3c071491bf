"""Decodes masks of class indices, and encodes them.

PIL reads masks, whose palette indices OpenCV would turn into colors.
"""

import io
from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from wsss_jax.data.images import load_image, open_image, orientation_of
from wsss_jax.errors import UserError

IGNORE = 255
"""The mask value of pixels that belong to no class, such as VOC's object borders."""

# Level 3 writes masks twice as fast as level 6 and 1.4 times as large (4 KB for VOC's).
_COMPRESSION = 3
_GRAY = [
    *(cv2.IMWRITE_PNG_COMPRESSION, _COMPRESSION),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
    *(cv2.IMWRITE_PNG_ZLIBBUFFER_SIZE, 2**20),  # compressed in one piece
]


def _palette() -> UInt8[np.ndarray, "256 3"]:
    index = np.arange(256)
    # Bit 3k + channel of the index becomes bit 7 - k of that channel (VOC devkit, colormap).
    channels = [
        sum(((index >> (3 * k + channel)) & 1) << (7 - k) for k in range(3)) for channel in range(3)
    ]
    return np.stack(channels, axis=-1).astype(np.uint8)


VOC_PALETTE = _palette()


def decode_mask(
    data: bytes, name: str, num_classes: int | None, foreground: int = 0
) -> UInt8[np.ndarray, "h w"]:
    """Decodes a PNG whose palette indices or gray values are class indices.

    Args:
      data: the bytes of the file.
      name: the name of the mask in error messages.
      num_classes: the number of foreground classes C. Values are 0 (background) to C, or 255
        (ignore); None accepts every value.
      foreground: if above 0, the value that stands for the only class, beside 0 for the background
        and 255 (ignore, unless it is `foreground`). The result has the index 1 in its place.

    Raises:
      UserError: the data are not a PNG, are truncated, have colors, alpha, 16 bits or an EXIF
        orientation, or hold another value.
    """
    header = open_image(data, name)
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
    if (orientation := orientation_of(header, data)) > 1:
        raise UserError(
            f"expected a mask without an EXIF orientation, found orientation {orientation} in"
            f" {name}: save the mask as it is shown, without EXIF"
        )
    mask = np.array(load_image(header, name), dtype=np.uint8)
    if header.mode == "L" and bits < 8:
        mask //= 255 // (2**bits - 1)
    if foreground:
        return _with_index(mask, name, foreground)
    if num_classes is not None:
        _check_indices(mask, name, num_classes)
    return mask


def check_foreground(foreground: int, num_classes: int) -> None:
    """Refuses a value for the foreground of masks that have no single class.

    Raises:
      UserError: there are several classes, or the value is not 1 to 255.
    """
    if num_classes != 1:
        raise UserError(
            f"expected one class with a foreground of {foreground}, found {num_classes}: leave"
            " foreground out and make masks of class indices"
        )
    if not 1 <= foreground <= 255:
        raise UserError(f"expected a foreground of 1 to 255, found {foreground}: change it")


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


def value_counts(mask: UInt8[np.ndarray, "h w"]) -> Int[np.ndarray, "256"]:
    """Counts the pixels of each value of a mask."""
    return np.bincount(mask.ravel(), minlength=256)


def _check_indices(mask: np.ndarray, name: str, num_classes: int) -> None:
    if found := _other_values(mask, (*range(num_classes + 1), IGNORE)):
        raise UserError(
            f"expected class indices 0 to {num_classes} or {IGNORE}, found {found} in {name}:"
            " check the mask or the list of classes"
        )


def _with_index(
    mask: UInt8[np.ndarray, "h w"], name: str, foreground: int
) -> UInt8[np.ndarray, "h w"]:
    if values := _other_values(mask, (0, foreground, IGNORE)):
        raise UserError(
            f"expected 0 and {foreground} (the foreground), found {values} in {name}: check the"
            " mask or the value of the foreground"
        )
    mask[mask == foreground] = 1
    return mask


def _other_values(mask: UInt8[np.ndarray, "h w"], allowed: Iterable[int]) -> str:
    """Returns a text of the first values of a mask that are not `allowed`, or ""."""
    other = np.ones(256, np.uint8)
    other[[value for value in allowed if value < 256]] = 0
    wrong = cv2.LUT(mask, other).view(bool)
    return ", ".join(map(str, np.unique(mask[wrong])[:5])) if wrong.any() else ""
