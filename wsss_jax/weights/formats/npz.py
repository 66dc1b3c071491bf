"""Reads ``.npz`` archives of plain arrays: NumPy's, big_vision's and our own."""

import io
import zipfile
from pathlib import Path
from typing import cast

import numpy as np

from wsss_jax.data.formats.npz import read_array
from wsss_jax.weights.formats.archive import open_archive
from wsss_jax.weights.formats.content import Content, check_total

_KINDS = "biufc"


def read(path: Path) -> Content:
    """Returns the arrays by name."""
    arrays: dict[str, np.ndarray] = {}
    with open_archive(path) as archive:
        check_total([entry.file_size for entry in archive.infolist()], path.stat().st_size)
        for entry in archive.infolist():
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"expected {entry.filename} without compression or deflated")
            with archive.open(entry) as file:
                name = entry.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"expected arrays with different names, found {name} twice")
                arrays[name] = read_array(cast(io.BufferedIOBase, file), entry, _KINDS)
    return Content(arrays)
