"""Reads ``.safetensors`` files with the library of that name."""

import struct
from pathlib import Path

from safetensors import safe_open

from wsss_jax.weights.formats.content import Content, check_count, check_table


def is_checkpoint(start: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that begins with `start` has the form of this format."""
    if len(start) < 9:
        return False
    header = struct.unpack_from("<Q", start)[0]
    return 0 < header <= size - 8 and start[8:9] == b"{"


def read(path: Path) -> Content:
    """Returns the arrays by name."""
    with open(path, "rb") as file:
        header = struct.unpack("<Q", file.read(8))[0]
    check_table(header, path.stat().st_size)
    # Mapped files would count twice in memory, once as the file and once as the arrays.
    with safe_open(path, framework="np", backend="pread") as file:
        names = file.keys()
        check_count(len(names), path.stat().st_size)
        arrays = {name: file.get_tensor(name) for name in names}
        return Content(arrays, dict(file.metadata() or {}))
