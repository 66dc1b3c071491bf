"""Reads arrays and dictionaries that NumPy stored as pickles, without executing the pickle.

The label files and CAM files of the field come from `np.save(path, {...})`, which writes a pickle
inside an `.npy` file. Unpickling may call any function that the file names. Here, the few names
that NumPy needs resolve to stand-ins of ours, as do those of PyTorch, whose tensors IRN leaves in
its files. Every other name is an error. NumPy's own reconstruction functions are not called either,
because they trust flags and pointers that a file can forge.
"""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from wsss_jax.data.formats.pickle_interpreter import (
    ForbiddenName,
    StandIn,
    checked_key,
    load_pickle,
    ordered_dict,
)
from wsss_jax.data.formats.torch_pickle import Tensor, load_storage, rebuild_tensor
from wsss_jax.errors import UserError
from wsss_jax.files import ARRAY_READING, read_bytes

_LONGEST_CODE = 16
_MOST = 1 << 32  # bytes
_NPY_MAGIC = b"\x93NUMPY"
# Kinds of numbers and text; "O" is an array of Python objects, which is stored as a list.
_KINDS = frozenset("biufcSUO")


def load_numpy_pickle(path: Path) -> object:
    """Reads what `np.save` or `pickle.dump` stored: containers, numbers, text and arrays.

    `np.save` turns a dictionary into a 0-d object array, which is unwrapped here. An `.npy` file
    with a numeric array gives that array, and a PyTorch tensor gives its values. Files that
    Python 2 wrote can be read too.

    Raises:
      UserError: the file is missing, truncated or of another kind, or it names anything other than
        arrays, tensors and built-in containers.
    """
    data = read_bytes(path, _MOST)
    try:
        with ARRAY_READING:
            value = _parse(data)
    except ForbiddenName as error:
        raise UserError(
            f"{path}: expected only arrays and built-in containers, found the name {error}, and "
            "such a file can run code when it is opened: convert it to .npz if you trust it"
        ) from error
    except Exception as error:  # a damaged pickle may fail in any way
        raise UserError(
            f"{path}: expected a NumPy file, found {len(data)} bytes that are truncated or of "
            f"another format ({type(error).__name__}): copy it again"
        ) from error
    if isinstance(value, np.ndarray) and value.dtype.hasobject and value.ndim == 0:
        return value.item()
    return value


def _parse(data: bytes) -> object:
    stream = io.BytesIO(data)
    if data.startswith(_NPY_MAGIC):
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(stream)
        if not dtype.hasobject:
            # Memory is taken for the numbers that a header declares.
            if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > len(data):
                raise ValueError(f"expected fewer numbers than {shape}")
            return np.load(io.BytesIO(data), allow_pickle=False)
    # Objects take several times the bytes that describe them, and there is one for each image.
    value, _ = load_pickle(
        data,
        NUMPY_NAMES | _TENSOR_NAMES,
        start=stream.tell(),
        budget=_SPARE + 24 * len(data),
        most_steps=_SPARE + len(data),
    )
    return _resolve(value, {}, [])


class _Dtype(StandIn):
    """Stands in for `numpy.dtype` while the pickle is read."""

    def __init__(self, code: Any, *_: Any) -> None:
        text = code if isinstance(code, str) else _raw(code).decode("ascii")
        if len(text) > _LONGEST_CODE:  # NumPy reads a list of codes as a type with fields
            raise ValueError("expected the code of a type")
        self.dtype = np.dtype(text)
        if self.dtype.kind not in _KINDS:
            raise ValueError(f"dtype {code}")

    def set_state(self, state: Any) -> None:
        # Only the byte order is used, because flags and fields would let a file forge pointers.
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(StandIn):
    """Stands in for `numpy.ndarray` while the pickle is read; `_resolve` unwraps it."""

    __slots__ = ("value",)
    value: np.ndarray

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


def _raw(content: Any) -> bytes:
    if not isinstance(content, bytes):  # `bytes` of a number would take as much memory
        raise ValueError(f"expected bytes, found {type(content).__name__}")
    return content


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    kind = dtype.dtype
    if kind.hasobject:
        flat = np.empty(len(content), object)
        for position, item in enumerate(content):
            flat[position] = item
    else:
        raw = content.encode("latin1") if isinstance(content, str) else _raw(content)
        flat = np.frombuffer(raw, kind) if kind.itemsize else np.empty(math.prod(shape), kind)
    return flat.reshape(shape, order="F" if order == "F" else "C").copy()


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _array(content, dtype, shape, order)
    return array


def _scalar(dtype: Any, content: Any) -> Any:
    return _array(content, dtype, (), "C")[()]


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"encoding {encoding}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


def _set(items: Any = ()) -> set[Any]:
    return set(map(checked_key, items))


def _frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(map(checked_key, items))


NUMPY_NAMES = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
    "collections.OrderedDict": ordered_dict,
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in (
            ("multiarray._reconstruct", _reconstruct),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _from_buffer),
        )
    },
    **{
        f"{module}.{name}": stand_in
        for module in ("builtins", "__builtin__")
        for name, stand_in in (("set", _set), ("frozenset", _frozenset), ("bytes", _empty_bytes))
    },
}
"""What arrays, sets and bytes need in pickles."""

_TENSOR_NAMES = {
    "torch.storage._load_from_bytes": load_storage,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
}
_SPARE = 2**24


def _resolve(value: Any, done: dict[int, Any], keep: list[Any]) -> Any:
    """Replaces every stand-in in `value` by the array that it stands for.

    `done` maps the identity of a container to its result, so that shared parts are visited once.
    `keep` holds temporary containers alive, because an identity is only unique among live objects.
    """
    if isinstance(value, _Dtype):
        return value.dtype
    if isinstance(value, Tensor):
        return value.array()
    if isinstance(value, _Array) and not value.value.dtype.hasobject:
        return value.value
    if not isinstance(value, _Array | dict | list | tuple):
        return value
    if id(value) in done:
        return done[id(value)]
    keep.append(value)
    if isinstance(value, _Array):
        result = done[id(value)] = value.value
        for position in np.ndindex(result.shape):
            result[position] = _resolve(result[position], done, keep)
    elif isinstance(value, dict):
        result = done[id(value)] = {}
        for key, item in value.items():
            result[key] = _resolve(item, done, keep)
    elif isinstance(value, list):
        result = done[id(value)] = []
        result.extend(_resolve(item, done, keep) for item in value)
    else:
        result = done[id(value)] = tuple(_resolve(item, done, keep) for item in value)
    return result
