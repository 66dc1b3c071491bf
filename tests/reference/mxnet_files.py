"""Writes MXNet's ``.params`` files in every version of the format, from its description."""

import struct
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

LIST_MAGIC = 0x112
MAGIC = {1: 0xF993FAC8, 2: 0xF993FAC9, 3: 0xF993FACA}
FLAGS = {
    np.dtype(kind): flag
    for flag, kind in enumerate(
        (
            *(np.float32, np.float64, np.float16, np.uint8, np.int32, np.int8, np.int64, bool),
            *(np.int16, np.uint16, np.uint32, np.uint64, ml_dtypes.bfloat16),
        )
    )
}


def params(arrays: Mapping[str, np.ndarray | None], version: int) -> bytes:
    """The bytes of a file; version 0 is the one before V1, None an array that does not exist."""
    data = [_array(array, version) for array in arrays.values()]
    names = [struct.pack("<Q", len(name.encode())) + name.encode() for name in arrays]
    lists = [struct.pack("<Q", len(part)) + b"".join(part) for part in (data, names)]
    return struct.pack("<QQ", LIST_MAGIC, 0) + b"".join(lists)


def write_params(path: Path, arrays: Mapping[str, np.ndarray | None], version: int = 2) -> None:
    """Writes a file; see `params`."""
    path.write_bytes(params(arrays, version))


def _array(array: np.ndarray | None, version: int) -> bytes:
    head = struct.pack("<I", MAGIC[version]) if version else b""
    if version >= 2:
        head += struct.pack("<i", 0)  # dense
    if array is None:
        return head + struct.pack("<i", -1 if version == 3 else 0)
    shape = struct.pack(f"<I{array.ndim}{'q' if version else 'I'}", array.ndim, *array.shape)
    device, flag = struct.pack("<ii", 1, 0), struct.pack("<i", FLAGS[array.dtype])
    return head + shape + device + flag + array.tobytes()
