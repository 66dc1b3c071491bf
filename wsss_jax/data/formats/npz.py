"""Reads arrays of ``.npz`` archives without trusting them.

What an archive declares is compared with the file and with a limit before memory is taken, and no
pickle is executed.
"""

import contextlib
import io
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np

from wsss_jax.files import ARRAY_READING, open_regular

SPARE = 512 << 20
"""Bytes that arrays may take in memory beyond three times the file's size. Maps are mostly zeros,
and compress to less than a hundredth."""

_LONGEST_HEADER = 10_000
"""Bytes; NumPy refuses longer ones too, but only after it has read them."""

_CHUNK = 2**20
"""Bytes that are read at once; archives take them a second time."""

_NUMBERS = "biufc"
NUMBERS_AND_TEXT = _NUMBERS + "SU"
"""Kinds of arrays; see `numpy.dtype.kind`."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Arrays:
    """The arrays of an open archive, which are read when they are asked for.

    Args:
      archive: the archive.
      most: the bytes that all arrays together may take.
      kinds: the kinds of arrays that are allowed; see `numpy.dtype.kind`.
    """

    def __init__(self, archive: zipfile.ZipFile, most: int, kinds: str):
        self._archive, self._left, self._kinds = archive, most, kinds
        self._entries = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads an array.

        Raises:
          KeyError: there is no such array.
          ValueError: it is no array, or declares other bytes than it has or more than allowed.
        """
        if name not in self._entries:
            raise KeyError(f"{name} is not in it")
        entry = self._entries[name]
        self._left -= entry.file_size
        if self._left < 0:
            raise ValueError(
                f"{entry.file_size:,} bytes in {name}, which the file does not justify"
            )
        if entry.compress_type not in _METHODS or entry.flag_bits & 1:
            raise ValueError(f"{name} is encrypted or compressed in an unknown way")
        with self._archive.open(entry) as file:
            return read_array(cast(io.BufferedIOBase, file), entry, self._kinds)


@contextlib.contextmanager
def open_arrays(path: Path, kinds: str = _NUMBERS) -> Iterator[Arrays]:
    """Opens an archive.

    Args:
      path: the file.
      kinds: the kinds of arrays that are allowed; see `numpy.dtype.kind`.

    Raises:
      FileNotFoundError: there is no such file.
      KeyError: an array that was asked for is not there.
      ValueError: the file is no archive of arrays, is damaged, or declares more bytes than its size
        justifies.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            size = os.fstat(file.fileno()).st_size
            yield Arrays(archive, 3 * size + SPARE, kinds)
    except (FileNotFoundError, KeyError):
        raise
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def read_array(file: io.BufferedIOBase, entry: zipfile.ZipInfo, kinds: str) -> np.ndarray:
    """Reads an array from an open entry of an archive.

    Raises:
      ValueError: it is no array of these kinds, or its size is not that of the entry.
    """
    version = np.lib.format.read_magic(file)
    length = file.read(2 if version == (1, 0) else 4)
    if int.from_bytes(length, "little") > _LONGEST_HEADER:
        raise ValueError(f"expected a short header in {entry.filename}")
    header = io.BytesIO(length + file.read(int.from_bytes(length, "little")))
    try:
        with ARRAY_READING:
            if version == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
            else:
                shape, fortran, dtype = np.lib.format.read_array_header_2_0(header)
    except Exception as error:  # It is parsed as Python, which raises errors of many kinds.
        raise ValueError(f"expected the header of an array in {entry.filename}") from error
    if dtype.kind not in kinds:
        what = "numbers or text" if "U" in kinds else "numbers"
        raise ValueError(f"expected plain {what} in {entry.filename}, found {dtype}")
    count = math.prod(shape)
    if count > entry.file_size:  # Texts without characters take no bytes, but memory.
        raise ValueError(f"expected an array of {shape} in {entry.filename}, found no content")
    if min(shape, default=0) < 0 or file.tell() + count * dtype.itemsize != entry.file_size:
        raise ValueError(f"expected an array of {shape} in {entry.filename}, found another size")
    array = read_values(file, dtype, count)
    file.read(1)  # the end, where zipfile compares the checksum
    array = array.astype(dtype.newbyteorder("="), copy=False)
    if dtype.kind == "U" and not _are_characters(array):
        raise ValueError(f"expected text in {entry.filename}, found other numbers")
    return array.reshape(shape, order="F" if fortran else "C")


def _are_characters(text: np.ndarray) -> bool:
    """Returns whether the numbers of an array of text are characters, of which strings can be made.

    Those that stand for halves of characters in UTF-16 could not be written to files.
    """
    codes = text.view(np.uint32) if text.itemsize else np.zeros(0, np.uint32)
    return bool((codes <= 0x10FFFF).all()) and not ((codes >= 0xD800) & (codes < 0xE000)).any()


def read_values(file: io.BufferedIOBase, dtype: np.dtype, count: int) -> np.ndarray:
    """Returns the next `count` values of a file.

    Raises:
      ValueError: the file ends before.
    """
    values = np.empty(count, dtype)
    rest = memoryview(values.view(np.uint8).data) if values.nbytes else memoryview(b"")
    while rest:
        got = file.readinto(rest[:_CHUNK])
        if not got:
            raise ValueError(f"expected {len(rest)} more bytes, found the end of the file")
        rest = rest[got:]
    return values
