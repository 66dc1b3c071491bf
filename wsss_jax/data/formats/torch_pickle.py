"""Read PyTorch tensors inside a NumPy pickle, without PyTorch and without executing anything.

IRN saves its CAM dictionary with two tensors among the arrays. A pickled tensor is a call of
`torch._utils._rebuild_tensor_v2` on a storage, which is in turn the bytes of `torch.save`'s older
format: pickles of a magic number, a version, the machine's byte order and sizes, the storage's
description and the list of its keys, then an int64 count and the raw little-endian numbers.
"""

import io
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

STORAGE_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def load_storage(data: bytes) -> np.ndarray:
    """The numbers of one storage, 1-d.

    Raises:
      ValueError, pickle.UnpicklingError, EOFError: `data` is no little-endian storage.
    """
    stream = io.BytesIO(data)
    if _StorageUnpickler(stream).load() != STORAGE_MAGIC:
        raise ValueError("no PyTorch storage")
    _StorageUnpickler(stream).load()  # format version: there is only one
    if not _StorageUnpickler(stream).load()["little_endian"]:
        raise ValueError("big-endian PyTorch storage")
    dtype = _StorageUnpickler(stream).load()
    _StorageUnpickler(stream).load()  # keys: one storage, one key
    count = int(np.frombuffer(stream.read(8), "<i8")[0])
    return np.frombuffer(stream.read(), dtype, count)


def rebuild_tensor(
    storage: np.ndarray, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
) -> np.ndarray:
    """The tensor of `size` at `offset` in `storage`; `stride` counts elements.

    Raises:
      ValueError: it would reach outside the storage.
    """
    if 0 in size:
        return np.empty(size, storage.dtype)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if min([offset, *size, *stride]) < 0 or last >= len(storage):
        raise ValueError("tensor outside its storage")
    view = np.lib.stride_tricks.as_strided(
        storage[offset:], size, [s * storage.itemsize for s in stride]
    )
    return view.copy()


class _StorageUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if module == "torch" and name in STORAGES:
            return np.dtype(STORAGES[name])
        raise pickle.UnpicklingError(f"{module}.{name} in a PyTorch storage")

    def persistent_load(self, pid: Any, /) -> np.dtype:
        # ("storage", type, key, device, count, view): the device it lived on does not matter.
        return np.dtype(pid[1])
