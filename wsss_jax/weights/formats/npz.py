"""Reads ``.npz`` archives of plain arrays: NumPy's, big_vision's and our own."""

import io
import math
import zipfile
from pathlib import Path
from typing import cast

import numpy as np

from wsss_jax.files import ARRAY_READING
from wsss_jax.weights.formats.archive import open_archive
from wsss_jax.weights.formats.content import Content, check_total, read_numbers

_KINDS = "biufc"
_LONGEST_HEADER = 10_000
"""Bytes; NumPy refuses longer ones too, but only after it has read them."""


def read(path: Path) -> Content:
    """Returns the arrays by name."""
    arrays: dict[str, np.ndarray] = {}
    with ARRAY_READING, open_archive(path) as archive:
        check_total([entry.file_size for entry in archive.infolist()], path.stat().st_size)
        for entry in archive.infolist():
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"expected {entry.filename} without compression or deflated")
            with archive.open(entry) as file:
                name = entry.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"expected arrays with different names, found {name} twice")
                arrays[name] = _read_array(cast(io.BufferedIOBase, file), entry)
    return Content(arrays)


def _read_array(file: io.BufferedIOBase, entry: zipfile.ZipInfo) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    length = file.read(2 if version == (1, 0) else 4)
    if int.from_bytes(length, "little") > _LONGEST_HEADER:
        raise ValueError(f"expected a short header in {entry.filename}")
    header = io.BytesIO(length + file.read(int.from_bytes(length, "little")))
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(header)
    if dtype.kind not in _KINDS:
        raise ValueError(f"expected plain numbers in {entry.filename}, found {dtype}")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or file.tell() + count * dtype.itemsize != entry.file_size:
        raise ValueError(f"expected an array of {shape} in {entry.filename}, found another size")
    array = read_numbers(file, dtype, count)
    file.read(1)  # the end, where zipfile compares the checksum
    array = array.astype(dtype.newbyteorder("="), copy=False)
    return array.reshape(shape, order="F" if fortran else "C")
