"""Reads a matrix of a structure in a MATLAB file of version 5, without trusting the file.

SciPy reads these files too, but its compiled reader crashes the process on some damaged ones. The
format is described in MathWorks' *MAT-File Format*.
"""

import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np

_HEADER = 128  # bytes
_UINT8, _MATRIX, _COMPRESSED = 2, 14, 15  # types of elements
_STRUCTURE, _UINT8_CLASS = 2, 9  # classes of arrays
_MOST = 1 << 28  # bytes of an array that is unpacked

Element = tuple[int, memoryview]
"""The type and the content of an element."""


def read_field(data: bytes, variable: str, field: str) -> np.ndarray:
    """Returns the uint8 matrix [h, w] in a field of a 1 × 1 structure.

    Args:
      data: the file.
      variable: the name of the structure.
      field: the name of its field.

    Raises:
      ValueError: the file is damaged or of another kind, or has no such matrix.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("no MATLAB file of version 5")
    order = "<" if data[126:128] == b"IM" else ">"
    try:
        for kind, content in _elements(memoryview(data)[_HEADER:], order):
            if kind == _COMPRESSED:
                unpacked = zlib.decompressobj().decompress(content, _MOST)
                ((kind, content),) = _elements(memoryview(unpacked), order)
            if kind == _MATRIX:
                name, parts = _array(content, order)
                if name == variable:
                    return _matrix(_field(parts, field, order), order)
    except (struct.error, zlib.error) as error:
        raise ValueError(f"damaged content ({error})") from error
    raise ValueError(f"no {variable}")


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """Yields the elements of a file or an array."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        if kind >> 16:  # up to four bytes in the tag itself
            kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start = at + 8
            end = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > min(len(data), end):
            raise ValueError(f"{size} bytes that are not there")
        yield kind, data[start : start + size]
        at = end


def _array(content: memoryview, order: str) -> tuple[str, list[Element]]:
    """Returns the name and the parts of an array: flags, dimensions, name, and what follows."""
    parts = list(_elements(content, order))
    if len(parts) < 3:
        raise ValueError("an array without content")
    return bytes(parts[2][1]).decode("latin1"), parts


def _class(parts: list[Element], order: str) -> int:
    return struct.unpack_from(order + "I", parts[0][1])[0] & 0xFF


def _field(parts: list[Element], field: str, order: str) -> memoryview:
    """Returns the array in a field of a structure."""
    if _class(parts, order) != _STRUCTURE or len(parts) < 5:
        raise ValueError("no structure")
    (length,) = struct.unpack_from(order + "i", parts[3][1])
    text = bytes(parts[4][1])
    if length < 1 or len(text) % length:
        raise ValueError("no names of fields")
    starts = range(0, len(text), length)
    names = [text[i : i + length].partition(b"\0")[0].decode("latin1") for i in starts]
    values = parts[5:]
    if len(values) != len(names) or field not in names:
        raise ValueError(f"no {field} in a structure of one element")
    kind, content = values[names.index(field)]
    if kind != _MATRIX:
        raise ValueError(f"no array in {field}")
    return content


def _matrix(content: memoryview, order: str) -> np.ndarray:
    _, parts = _array(content, order)
    shape = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1])
    if _class(parts, order) != _UINT8_CLASS or len(parts) != 4 or parts[3][0] != _UINT8:
        raise ValueError("an array of another kind than uint8")
    values = np.frombuffer(parts[3][1], np.uint8)
    if len(shape) != 2 or min(shape) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"{len(values)} values in an array of shape {shape}")
    return values.reshape(shape, order="F").copy()
