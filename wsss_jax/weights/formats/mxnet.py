"""Reads ``.params`` files of MXNet, which cannot be installed with current Pythons.

The form is that of `NDArray::Save` and `NDArray::Load` in MXNet's ``src/ndarray/ndarray.cc``: a
list of arrays and a list of names. Numbers are little-endian. There are four versions of an array:
before V1 a shape of uint32, V1 a shape of int64, V2 a storage type before the shape, V3 shapes as
NumPy's, so that a shape without axes is a number and not an array that does not exist.
"""

import io
import math
import os
import struct
from pathlib import Path

import ml_dtypes
import numpy as np

from wsss_jax.data.formats.npz import read_values
from wsss_jax.weights.formats.content import Content, check_count

MAGIC = struct.pack("<Q", 0x112)

_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_MOST_AXES = 32
_DTYPES = dict(enumerate(("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8", "?", "<i2")))
_DTYPES |= {9: "<u2", 10: "<u4", 11: "<u8"}
_BFLOAT16 = 12


def read(path: Path) -> Content:
    """Returns the arrays by name, without ``arg:`` (parameters) and ``aux:`` (states)."""
    with open(path, "rb") as file:
        reader = _Reader(file)
        reader.take(16)  # the magic number and a reserved one
        arrays = [reader.array() for _ in range(reader.count())]
        names = [reader.name() for _ in range(reader.count())]
        if reader.left():
            raise ValueError(f"expected the end of the file, found {reader.left()} more bytes")
    if len(names) != len(arrays):
        raise ValueError(f"expected {len(arrays)} names, found {len(names)}")
    found: dict[str, np.ndarray] = {}
    for name, array in zip(names, arrays, strict=True):
        plain = name.removeprefix("arg:").removeprefix("aux:")
        if plain in found:
            raise ValueError(f"expected arrays with different names, found {plain} twice")
        if array is not None:
            found[plain] = array
    return Content(found)


class _Reader:
    def __init__(self, file: io.BufferedReader) -> None:
        self.file = file
        self.size = os.fstat(file.fileno()).st_size

    def left(self) -> int:
        return self.size - self.file.tell()

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self.left():
            raise ValueError(f"expected {count} more bytes, found the end of the file")
        return self.file.read(count)

    def number(self, form: str) -> int:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def count(self) -> int:
        """Returns the length of the next list."""
        count = self.number("Q")
        check_count(count, self.size)
        return count

    def name(self) -> str:
        return self.take(self.number("Q")).decode()

    def shape(self, axes: int, form: str) -> tuple[int, ...]:
        if not 0 <= axes <= _MOST_AXES:
            raise ValueError(f"expected at most {_MOST_AXES} axes, found {axes}")
        return tuple(self.number(form) for _ in range(axes))

    def array(self) -> np.ndarray | None:
        """Returns the next array; None if it was saved before it existed."""
        version = self.number("I")
        if version in (_V2, _V3):
            if self.number("i"):
                raise ValueError("expected dense arrays, found a sparse one")
            axes = self.number("i")
            if axes == -1 and version == _V3:
                return None
            shape = self.shape(axes, "q")
        elif version == _V1:
            shape = self.shape(self.number("I"), "q")
        else:
            shape = self.shape(version, "I")
        if (not shape and version != _V3) or (-1 in shape and version == _V3):
            return None
        self.take(8)  # the device
        flag = self.number("i")
        dtype = np.dtype(ml_dtypes.bfloat16 if flag == _BFLOAT16 else _DTYPES[flag])
        count = math.prod(shape)
        if min(shape, default=0) < 0 or count * dtype.itemsize > self.left():
            raise ValueError(f"expected an array of {shape}, found the end of the file")
        return read_values(self.file, dtype, count).reshape(shape)
