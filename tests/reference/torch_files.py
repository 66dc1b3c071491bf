"""Writes checkpoints in both forms of `torch.save`, without PyTorch.

Python's own pickler writes them; classes and functions of PyTorch are stand-ins of the same names.
"""

import collections
import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001

STORAGE_NAMES = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.complex64): "ComplexFloatStorage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.int32): "IntStorage",
    np.dtype(np.int16): "ShortStorage",
    np.dtype(np.int8): "CharStorage",
    np.dtype(np.uint8): "ByteStorage",
    np.dtype(bool): "BoolStorage",
}


def _named(module: str, name: str) -> Any:
    """A class that pickles name `module.name`."""
    return type(name, (), {"__module__": module, "__qualname__": name})


_SCRIPT = _named("__torch__.net", "Net")
_KINDS = {name: _named("torch", name) for name in STORAGE_NAMES.values()}
_REBUILD = _named("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = _named("torch._utils", "_rebuild_parameter")


class Storage:
    """Numbers that tensors share.

    Attributes:
      numbers: the numbers [count].
      part: (offset, count) to save it as a part of the numbers, in the older form.
    """

    def __init__(self, numbers: np.ndarray, part: tuple[int, int] | None = None) -> None:
        self.numbers, self.part = numbers, part


class Tensor:
    """A tensor of a storage, saved as PyTorch does."""

    def __init__(
        self,
        storage: Storage,
        size: tuple[int, ...],
        stride: tuple[int, ...] | None = None,
        offset: int = 0,
        parameter: bool = False,
    ) -> None:
        """Args: `stride` counts numbers; by default the tensor is contiguous."""
        if stride is None:
            stride = tuple(np.cumprod([1, *size[:0:-1]], dtype=int)[::-1].tolist() if size else ())
        self.state = (storage, offset, size, stride, parameter, collections.OrderedDict())
        self.parameter = parameter

    def __reduce__(self) -> tuple[Any, ...]:
        if self.parameter:
            plain = Tensor(self.state[0], self.state[2], self.state[3], self.state[1])
            return _PARAMETER, (plain, True, collections.OrderedDict())
        return _REBUILD, self.state


def tensor(array: np.ndarray, parameter: bool = False) -> Tensor:
    """A tensor with the numbers of an array, in a storage of its own."""
    return Tensor(Storage(np.ravel(array)), array.shape, parameter=parameter)


def state_dict(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The state dict of a network."""
    return collections.OrderedDict((name, tensor(array)) for name, array in arrays.items())


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Lets the pickler find the stand-ins, which it looks up before it writes their names."""
    modules = {
        name: types.ModuleType(name)
        for name in ("torch", "torch._utils", "__torch__", "__torch__.net")
    }
    for one in (*_KINDS.values(), _REBUILD, _PARAMETER, _SCRIPT):
        setattr(modules[one.__module__], one.__name__, one)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class ScriptModule:
    """A module of TorchScript with its attributes."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self.attributes = attributes

    def __reduce__(self) -> tuple[Any, ...]:
        return _SCRIPT, (), self.attributes


class _Pickler(pickle.Pickler):
    def __init__(self, file: Any, protocol: int, older: bool) -> None:
        super().__init__(file, protocol)
        self.older = older
        self.keys: dict[int, str] = {}
        self.storages: list[Storage] = []

    def persistent_id(self, obj: Any, /) -> Any:
        if not isinstance(obj, Storage):
            return None
        identity = id(obj.numbers)
        if identity not in self.keys:
            self.keys[identity] = str(len(self.keys))
            self.storages.append(obj)
        kind = _KINDS[STORAGE_NAMES[obj.numbers.dtype.newbyteorder("=")]]
        key = self.keys[identity]
        pid: tuple[Any, ...] = ("storage", kind, key, "cpu", obj.numbers.size)
        view = (f"{key}-{obj.part}", *obj.part) if obj.part else None
        return (*pid, view) if self.older else pid


def _pickled(value: Any, protocol: int, older: bool) -> tuple[bytes, list[Storage]]:
    file = io.BytesIO()
    with _stand_ins():
        pickler = _Pickler(file, protocol, older)
        pickler.dump(value)
    return file.getvalue(), pickler.storages


def write_legacy(path: Path, value: Any, *, big_endian: bool = False, protocol: int = 2) -> None:
    """Writes `value` in the form of PyTorch before 1.6."""
    order = ">" if big_endian else "<"
    sizes = {"short": 2, "int": 4, "long": 4}
    machine = {"protocol_version": VERSION, "little_endian": not big_endian, "type_sizes": sizes}
    pickled, storages = _pickled(value, protocol, True)
    heads = [pickle.dumps(one, protocol) for one in (MAGIC, VERSION, machine)]
    keys = pickle.dumps([str(number) for number in range(len(storages))], protocol)
    with open(path, "wb") as file:
        file.writelines([*heads, pickled, keys])
        for storage in storages:
            # The count is little-endian on every machine.
            file.write(struct.pack("<q", storage.numbers.size))
            file.write(_raw(storage.numbers, order))


def write_zip(
    path: Path,
    value: Any,
    *,
    folder: str = "archive",
    byteorder: str | None = "little",
    protocol: int = 2,
    alignment: int = 64,
    script: bool = False,
) -> None:
    """Writes `value` in the form of PyTorch since 1.6; files before 2.1 name no byte order.

    TorchScript's archives (`script`) have constants and code besides.
    """
    pickled, storages = _pickled(value, protocol, False)
    order = ">" if byteorder == "big" else "<"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: bytes) -> None:
            info = zipfile.ZipInfo(f"{folder}/{name}")
            assert archive.fp is not None
            start = archive.fp.tell() + 30 + len(info.filename.encode()) + 4
            padding = -start % alignment
            info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
            archive.writestr(info, content)

        add("data.pkl", pickled)
        if script:
            add("constants.pkl", pickle.dumps((), protocol))
            add("code/__torch__/net.py", b"import os\nos.abort()\n")
        if byteorder is not None:
            add("byteorder", byteorder.encode())
        for number, storage in enumerate(storages):
            add(f"data/{number}", _raw(storage.numbers, order))
        add("version", b"3\n")


def _raw(numbers: np.ndarray, order: str) -> bytes:
    """The bytes of numbers in a byte order."""
    if order == "<" or numbers.itemsize == 1:
        return numbers.tobytes()
    parts = 2 if numbers.dtype.kind == "c" else 1
    return numbers.view(f"u{numbers.itemsize // parts}").byteswap().tobytes()
