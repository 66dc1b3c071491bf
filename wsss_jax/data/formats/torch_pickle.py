"""Reads PyTorch tensors inside a NumPy pickle, without PyTorch and without executing anything.

IRN saves its CAM dictionary with two tensors among the arrays. A pickled tensor is a call of
`torch._utils._rebuild_tensor_v2` on a storage. The storage is bytes in the older format of
`torch.save`: pickles of a magic number, a version, the machine's byte order and sizes, the
description of the storage and the list of its keys, followed by an int64 count and the raw
little-endian numbers.
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
    """Returns the numbers of one storage as a 1-d array.

    Raises:
      ValueError, pickle.UnpicklingError, EOFError: `data` is not a little-endian storage.
    """
    stream = io.BytesIO(data)
    if _StorageUnpickler(stream).load() != STORAGE_MAGIC:
        raise ValueError("expected a PyTorch storage, found other data")
    _StorageUnpickler(stream).load()  # the format version, of which there is only one
    if not _StorageUnpickler(stream).load()["little_endian"]:
        raise ValueError("expected a little-endian PyTorch storage, found a big-endian one")
    dtype = _StorageUnpickler(stream).load()
    _StorageUnpickler(stream).load()  # the keys: one storage has one key
    count = int(np.frombuffer(stream.read(8), "<i8")[0])
    return np.frombuffer(stream.read(), dtype, count)


def rebuild_tensor(
    storage: np.ndarray, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
) -> np.ndarray:
    """Returns the tensor of `size` at `offset` in `storage`, where `stride` counts elements.

    Raises:
      ValueError: the tensor would reach beyond the storage.
    """
    if 0 in size:
        return np.empty(size, storage.dtype)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if min([offset, *size, *stride]) < 0 or last >= len(storage):
        raise ValueError("expected a tensor inside its storage, found one that reaches beyond it")
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
        # In ("storage", type, key, device, count, view) only the type matters, not the device.
        return np.dtype(pid[1])
