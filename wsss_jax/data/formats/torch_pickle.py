"""Reads PyTorch tensors inside pickles, without PyTorch and without executing anything.

A pickled tensor is a call of `torch._utils._rebuild_tensor_v2` on a storage, which is a flat list
of numbers that several tensors may share. The pickle names a storage by a persistent id
``("storage", type, key, device, count, …)``; where its numbers are depends on the file.

In the older form of `torch.save`, until PyTorch 1.6, which is also the form of tensors in other
pickles (IRN saves its CAM dictionary with two of them), pickles of a magic number, a version, the
machine's byte order and sizes, the object and the list of its storages' keys are followed by the
storages: an int64 count and the raw numbers of each.
"""

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from wsss_jax.data.formats.pickle_interpreter import (
    Inert,
    Names,
    StandIn,
    load_pickle,
    ordered_dict,
)

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
_MORE_STORAGES = {
    "BFloat16Storage": ml_dtypes.bfloat16,
    "ComplexFloatStorage": "<c8",
    "ComplexDoubleStorage": "<c16",
    "UntypedStorage": "u1",
    "_UntypedStorage": "u1",
}
_DTYPES = {
    "float64": "<f8",
    "double": "<f8",
    "float32": "<f4",
    "float": "<f4",
    "float16": "<f2",
    "half": "<f2",
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "int64": "<i8",
    "long": "<i8",
    "int32": "<i4",
    "int": "<i4",
    "int16": "<i2",
    "short": "<i2",
    "int8": "i1",
    "uint64": "<u8",
    "uint32": "<u4",
    "uint16": "<u2",
    "uint8": "u1",
    "bool": "?",
    "complex64": "<c8",
    "complex128": "<c16",
}
_MOST_AXES = 32


class Storage(StandIn):
    """Numbers of one type, which are read when a tensor first needs them.

    Attributes:
      dtype: the type of the numbers, little-endian.
      count: how many there are.
      read: a function that reads them, which whoever knows the file sets.
    """

    __slots__ = ("_numbers", "count", "dtype", "read")

    def __init__(self, dtype: np.dtype, count: int) -> None:
        self.dtype, self.count = dtype, count
        self.read: Callable[[], np.ndarray] | None = None
        self._numbers: np.ndarray | None = None

    def numbers(self) -> np.ndarray:
        """Returns the numbers [count]."""
        if self._numbers is None:
            if self.read is None:
                raise ValueError("expected the numbers of every storage")
            self._numbers = self.read()
        return self._numbers


class Tensor(StandIn):
    """A part of a storage; `array` gives its numbers."""

    __slots__ = ("dtype", "offset", "size", "storage", "stride")

    def __init__(
        self,
        storage: Storage,
        offset: int,
        size: Sequence[int],
        stride: Sequence[int],
        dtype: np.dtype | None = None,
    ) -> None:
        """Args: like those of `torch.as_strided`; `dtype` differs where a storage is bytes."""
        if not isinstance(storage, Storage) or not len(size) == len(stride) <= _MOST_AXES:
            raise ValueError("expected a tensor of a storage")
        self.storage, self.offset = storage, offset
        self.size, self.stride = tuple(size), tuple(stride)
        self.dtype = storage.dtype if dtype is None else dtype
        count = storage.count * storage.dtype.itemsize // self.dtype.itemsize
        numbers = [offset, *self.size, *self.stride]
        if any(type(number) is not int for number in numbers) or min(numbers) < 0:
            raise ValueError("expected a tensor with positive sizes and strides")
        last = offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if 0 not in self.size and last >= count:
            raise ValueError("expected a tensor inside its storage, found one that reaches beyond")
        if math.prod(self.size) > count:
            raise ValueError("expected a tensor whose numbers are all stored, found a repeated one")

    @property
    def nbytes(self) -> int:
        """The size of the array in bytes."""
        return math.prod(self.size) * self.dtype.itemsize

    def array(self) -> np.ndarray:
        """Returns the tensor as a view of its storage."""
        if 0 in self.size:
            return np.empty(self.size, self.dtype)
        numbers = self.storage.numbers().view(self.dtype)
        return np.lib.stride_tricks.as_strided(
            numbers[self.offset :], self.size, [s * numbers.itemsize for s in self.stride]
        )


def rebuild_tensor(
    storage: Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
) -> Tensor:
    """Stands for `torch._utils._rebuild_tensor_v2`.

    Raises:
      ValueError: the tensor would reach beyond the storage.
    """
    return Tensor(storage, offset, size, stride)


def _rebuild_tensor_of_bytes(
    storage: Storage,
    offset: int,
    size: Sequence[int],
    stride: Sequence[int],
    gradient: Any,
    hooks: Any,
    dtype: np.dtype,
    *_: Any,
) -> Tensor:
    return Tensor(storage, offset, size, stride, np.dtype(dtype))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _rebuild_with_attributes(rebuild: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    return rebuild.make(*arguments)


def _size(axes: Sequence[int] = ()) -> tuple[int, ...]:
    return tuple(axes)


NAMES: Names = {
    "collections.OrderedDict": ordered_dict,
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_of_bytes,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_with_attributes,
    "torch.Size": _size,
    "torch.device": Inert,
    "torch.Tensor": Inert,
    "torch.nn.parameter.Parameter": Inert,
    **{f"torch.{name}": np.dtype(code) for name, code in _DTYPES.items()},
    **{
        f"{module}.{name}": np.dtype(code)
        for module in ("torch", "torch.storage")
        for name, code in (STORAGES | _MORE_STORAGES).items()
    },
}
"""What tensors and state dicts need."""


class Storages:
    """The storages that a pickle names, by their key in the file."""

    def __init__(self) -> None:
        self.by_key: dict[str, Storage] = {}

    def find(self, pid: Any) -> Storage:
        """Returns the storage of a persistent id; a function for `load_pickle`."""
        kind, dtype, key, _, count, *view = pid
        if (type(kind), type(key), type(count)) != (str, str, int) or kind != "storage":
            raise ValueError("expected the persistent id of a storage")
        if not isinstance(dtype, np.dtype):
            raise ValueError("expected the type of a storage")
        storage = self.by_key.setdefault(key, Storage(dtype, count))
        if storage.dtype != dtype or storage.count != count or count < 0:
            raise ValueError("expected storages of one type and size")
        if view and view[0] is not None:
            _, offset, size = view[0]
            return _part(storage, offset, size)
        return storage


def _part(storage: Storage, offset: int, size: int) -> Storage:
    if min(offset, size) < 0 or offset + size > storage.count:
        raise ValueError("expected a part inside its storage, found one that reaches beyond")
    part = Storage(storage.dtype, size)
    part.read = lambda: storage.numbers()[offset : offset + size]
    return part


def little_endian(numbers: np.ndarray, big_endian: bool) -> np.ndarray:
    """Returns the numbers in the machine's order, if the file's has been the other one."""
    if not big_endian or numbers.itemsize == 1:
        return numbers
    complex_parts = 2 if numbers.dtype.kind == "c" else 1
    integers = numbers.view(f"u{numbers.itemsize // complex_parts}")
    return integers.byteswap(inplace=True).view(numbers.dtype)


def read_legacy(
    data: bytes | memoryview,
    names: Names,
    read: Callable[[int, np.dtype, int], np.ndarray],
) -> Any:
    """Returns the object of a file in the older form, with `Tensor` in the place of tensors.

    Args:
      data: the file's bytes.
      names: what the pickle may name.
      read: a function that reads numbers of a type at a position, called when they are needed.

    Raises:
      ForbiddenName: the pickle names something else.
      Exception: any other one means that the file is damaged or of another kind.
    """
    magic, at = load_pickle(data, {})
    if magic != STORAGE_MAGIC:
        raise ValueError("expected a PyTorch file, found another pickle")
    _, at = load_pickle(data, {}, start=at)  # the format's version, of which there is only one
    machine, at = load_pickle(data, {}, start=at)
    storages = Storages()
    value, at = load_pickle(data, names, start=at, persistent=storages.find)
    keys, at = load_pickle(data, {}, start=at)
    for key in keys:
        if type(key) is not str:
            raise ValueError("expected the keys of storages")
        storage = storages.by_key[key]
        count = struct.unpack_from("<q", data, at)[0]
        at += 8
        end = at + count * storage.dtype.itemsize
        if count != storage.count or end > len(data):
            raise ValueError(f"expected storages of {len(data)} bytes, found larger ones")
        storage.read = _reader(read, at, storage, not machine["little_endian"])
        at = end
    return value


def _reader(
    read: Callable[[int, np.dtype, int], np.ndarray], at: int, storage: Storage, big_endian: bool
) -> Callable[[], np.ndarray]:
    dtype, count = storage.dtype, storage.count
    return lambda: little_endian(read(at, dtype, count), big_endian)


def load_storage(data: bytes) -> Storage:
    """Stands for `torch.storage._load_from_bytes`, whose argument is a file of the older form.

    Raises:
      Exception: `data` is not such a storage.
    """

    def read(at: int, dtype: np.dtype, count: int) -> np.ndarray:
        return np.frombuffer(data, dtype, count, at).copy()

    value = read_legacy(data, NAMES, read)
    if not isinstance(value, Storage):
        raise ValueError("expected a PyTorch storage, found other data")
    return value
