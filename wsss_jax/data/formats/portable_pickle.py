"""Writes `.npy` dictionaries that the published programs read with any NumPy and PyTorch.

A pickle names functions by their module. NumPy 2 writes `numpy._core`, which NumPy 1 does not have,
while all versions read `numpy.core`. And IRN expects a PyTorch tensor where we have an array. So
names are replaced in the finished pickle.
"""

import io
import pickle
import pickletools
import struct
from typing import Any

import numpy as np

from wsss_jax.data.formats.torch_pickle import STORAGE_MAGIC, STORAGES, load_storage, rebuild_tensor

_STORAGE_NAMES = {np.dtype(code): name for name, code in STORAGES.items()}
_RENAMED = {
    f"{load_storage.__module__} {load_storage.__name__}": "torch.storage _load_from_bytes",
    f"{rebuild_tensor.__module__} {rebuild_tensor.__name__}": "torch._utils _rebuild_tensor_v2",
}


class Tensor:
    """Marks an array that `dump_numpy_pickle` stores as a PyTorch tensor."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = np.ascontiguousarray(array)

    def __reduce__(self) -> tuple[Any, ...]:
        array = self._array
        stride = tuple(s // array.itemsize for s in array.strides)
        # The arguments after the storage say: offset 0, no gradient, no hooks.
        return rebuild_tensor, (_Storage(array), 0, array.shape, stride, False, {})


class _Storage:
    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __reduce__(self) -> tuple[Any, ...]:
        return load_storage, (_storage_bytes(self._array),)


def dump_numpy_pickle(value: object) -> bytes:
    """Returns the bytes that `np.save` would write, which `np.load(allow_pickle=True)` reads.

    Raises:
      KeyError: a `Tensor` has a type for which PyTorch has no storage.
    """
    array = np.empty((), object)
    array[()] = value
    file = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(file, header)
    # Protocol 3 is the newest one that writes names as text, so that they can be replaced.
    file.write(_with_public_names(pickle.dumps(array, protocol=3, fix_imports=False)))
    return file.getvalue()


def _with_public_names(data: bytes) -> bytes:
    parts: list[bytes] = []
    done = 0
    for opcode, name, position in pickletools.genops(data):
        if opcode.name != "GLOBAL":
            continue
        name = str(name)
        public = _RENAMED.get(name, name.replace("numpy._core.", "numpy.core."))
        parts += [data[done:position], b"c" + public.replace(" ", "\n").encode() + b"\n"]
        done = (position or 0) + len(name) + 2
    return b"".join([*parts, data[done:]])


def _storage_bytes(array: np.ndarray) -> bytes:
    """Returns a storage in the older format of `torch.save`, which tensors in pickles use."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    kind = array.dtype.newbyteorder("<")
    machine = {
        "protocol_version": 1001,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    # The persistent id ("storage", type, key, device, count, view) is written opcode by opcode,
    # because its type is a class of PyTorch, which the standard pickler could not import.
    storage_id = (
        b"\x80\x02("
        + text("storage")
        + f"ctorch\n{_STORAGE_NAMES[kind]}\n".encode()
        + text("0")
        + text("cpu")
        + b"J"
        + struct.pack("<i", array.size)
        + b"NtQ."
    )
    head = [pickle.dumps(part, protocol=2) for part in (STORAGE_MAGIC, 1001, machine)]
    keys = pickle.dumps(["0"], protocol=2)
    count = struct.pack("<q", array.size)
    return b"".join([*head, storage_id, keys, count, array.astype(kind).tobytes()])
