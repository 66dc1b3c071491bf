"""Reads checkpoints in PyTorch's zip form: ``NAME/data.pkl`` and one file for each storage.

The storages are stored without compression, so they are read where they lie in the archive.
Checksums are compared if they are there; PyTorch can leave them out.

TorchScript's archives, such as OpenAI's CLIP, have this form too; the code in them is ignored.
"""

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wsss_jax.data.formats.pickle_interpreter import load_pickle
from wsss_jax.data.formats.torch_pickle import Storage, Storages, little_endian
from wsss_jax.weights.formats.archive import MAGIC, open_archive
from wsss_jax.weights.formats.content import SPARE, Content, Numbers, check_total, most_arrays
from wsss_jax.weights.formats.tensor_pickle import NAMES, SCRIPT_NAMES, ScriptModule

_BYTES = np.dtype(np.uint8)
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def read(path: Path) -> Content:
    """Returns what was saved; tensors are read when they are needed."""
    numbers = Numbers(path)
    storages = Storages()
    with open_archive(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        folder = _folder(list(entries))
        pickle = _read(numbers, entries[f"{folder}data.pkl"])
        names = SCRIPT_NAMES if f"{folder}constants.pkl" in entries else NAMES
        order = b"little"
        if f"{folder}byteorder" in entries:
            order = _read(numbers, entries[f"{folder}byteorder"]).tobytes()
        if order not in (b"little", b"big"):
            raise ValueError(f"expected the byte order little or big, found {order[:20]!r}")
    budget = numbers.size + SPARE
    value, _ = load_pickle(pickle.data, names, persistent=storages.find, budget=budget)
    sizes = [storage.count * storage.dtype.itemsize for storage in storages.by_key.values()]
    check_total(sizes, numbers.size)  # entries of an archive may overlap
    for key, storage in storages.by_key.items():
        entry = entries[f"{folder}data/{key}"]
        if entry.file_size != storage.count * storage.dtype.itemsize:
            raise ValueError(f"expected storage {key} with {storage.count} numbers, found another")
        storage.read = _reader(numbers, entry, storage, order == b"big")
    if isinstance(value, ScriptModule):
        value = value.state_dict(most_arrays(numbers.size))
    return Content(value if isinstance(value, dict) else {"": value})


def is_checkpoint(path: Path) -> bool:
    """Whether the archive is a checkpoint of PyTorch."""
    with open_archive(path) as archive:
        return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())


def _folder(names: list[str]) -> str:
    """Returns the folder that holds ``data.pkl``, with the slash."""
    found = [name.removesuffix("data.pkl") for name in names if name.split("/")[1:] == ["data.pkl"]]
    if len(found) != 1:
        raise ValueError(f"expected one data.pkl in a folder of the archive, found {len(found)}")
    return found[0]


def _start(numbers: Numbers, entry: zipfile.ZipInfo) -> int:
    """Returns where the bytes of an entry begin."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ValueError(f"expected {entry.filename} without compression: save it again")
    header = numbers.read(entry.header_offset, _BYTES, _LOCAL_HEADER.size).tobytes()
    mark, name, extra = _LOCAL_HEADER.unpack(header)
    if mark != MAGIC:
        raise ValueError(f"expected the header of {entry.filename}, found other bytes")
    return entry.header_offset + _LOCAL_HEADER.size + name + extra


def _read(
    numbers: Numbers, entry: zipfile.ZipInfo, dtype: np.dtype = _BYTES, big_endian: bool = False
) -> np.ndarray:
    """Returns the numbers of an entry."""
    found = numbers.read(_start(numbers, entry), dtype, entry.file_size // dtype.itemsize)
    if entry.CRC and zlib.crc32(found.view(_BYTES).data) != entry.CRC:
        raise ValueError(f"expected {entry.filename} with its checksum, found changed bytes")
    return little_endian(found, big_endian)


def _reader(
    numbers: Numbers, entry: zipfile.ZipInfo, storage: Storage, big_endian: bool
) -> Callable[[], np.ndarray]:
    return lambda: _read(numbers, entry, storage.dtype, big_endian)
