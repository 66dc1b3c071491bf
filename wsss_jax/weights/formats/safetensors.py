"""Reads ``.safetensors`` files with the library of that name."""

import struct
from pathlib import Path

from safetensors import safe_open

from wsss_jax.weights.formats.content import SPARE, Content

_LARGEST_HEADER = SPARE


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
    if header > _LARGEST_HEADER:
        raise ValueError(f"expected a header of at most {_LARGEST_HEADER} bytes, found {header}")
    # Mapped files would count twice in memory, once as the file and once as the arrays.
    with safe_open(path, framework="np", backend="pread") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Content(arrays, dict(file.metadata() or {}))
