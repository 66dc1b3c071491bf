"""Checkpoints of other programs: good ones, and those that attack whoever reads them."""

import contextlib
import functools
import io
import json
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from tests.hostile.kind import Attack, Files, Kind, single
from tests.hostile.mutations import COUNTS
from tests.hostile.pickles import PICKLES, some
from tests.reference.mxnet_files import LIST_MAGIC, MAGIC, params
from tests.reference.torch_files import state_dict, write_legacy, write_zip
from wsss_jax.weights.checkpoint import digest, read_checkpoint

FORMS = ("torch legacy", "torch zip", "npz", "safetensors", "mxnet")


@functools.cache
def seeds(form: str) -> list[bytes]:
    """Good files: small ones, and one of a megabyte."""
    rng = np.random.default_rng(0)
    small = {
        f"layer.{i}.{name}": rng.standard_normal(shape).astype(dtype)
        for i in range(3)
        for name, shape, dtype in (
            ("weight", (3, 2, 2, 2), np.float32),
            ("bias", (3,), np.float16),
            ("count", (), np.int64),
        )
    }
    large = {"conv.weight": rng.standard_normal((64, 512, 8)).astype(np.float32)}
    half = {"a": np.ones((2, 2), ml_dtypes.bfloat16), "empty": np.zeros((0, 3), np.float32)}
    training = {
        "state_dict": state_dict({f"module.{name}": array for name, array in small.items()}),
        "optimizer": {"state": {0: {"step": 3, "exp_avg": state_dict(half)}}, "lr": 0.1},
        "epoch": 3,
        "numpy": np.float64(2.5),
    }
    if form == "npz":
        return [_npz(small), _npz(large), _npz(small, zipfile.ZIP_DEFLATED)]
    if form == "safetensors":
        return [safetensors.numpy.save(arrays) for arrays in (small, large, half)]
    if form == "mxnet":
        return [params(small if v == 3 else half, v) for v in range(4)] + [params(large, 2)]
    values: list[Any] = [state_dict(small), state_dict(half), training, state_dict(large)]
    write = write_zip if form == "torch zip" else write_legacy
    return [_saved(write, value, protocol=2 + 2 * (i % 2)) for i, value in enumerate(values)]


def _saved(write: Callable[..., None], value: Any, **how: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "w", value, **how)
        return (Path(folder) / "w").read_bytes()


def _npz(arrays: dict[str, np.ndarray], compression: int = zipfile.ZIP_STORED) -> bytes:
    entries = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        entries[f"{name}.npy"] = file.getvalue()
    return _zip(entries, compression)


def _zip(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)  # always of one date
    return file.getvalue()


# Pickles in PyTorch's forms.


def _in_legacy(rng: np.random.Generator, attack: bytes) -> bytes:
    machine = {"little_endian": bool(rng.random() < 0.9)}
    heads = [pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, machine)]
    parts = [*heads, attack, pickle.dumps(["0"], 2), struct.pack("<q", 8), bytes(32)]
    if rng.random() < 0.2:  # in the place of another pickle
        parts[int(rng.integers(1, 5))] = attack
    return b"".join(parts)


def _in_zip(rng: np.random.Generator, attack: bytes) -> bytes:
    return _zip({"a/data.pkl": attack, "a/data/0": bytes(32), "a/version": b"3\n"})


def _with_pickle(wrap: Callable[..., bytes], attack: Attack) -> Attack:
    def made(rng: np.random.Generator) -> bytes:
        return wrap(rng, attack(rng))

    made.__name__ = attack.__name__
    return made


# Archives.


def overlapping_entries(rng: np.random.Generator) -> bytes:
    """Many entries of a table of contents that lie at the same place."""
    good = _zip({"a/data/0": bytes(2**20)})
    end = good.rindex(b"PK\x05\x06")
    table = good[good.rindex(b"PK\x01\x02", 0, end) : end]
    count = some(rng, 2, 3000)
    entries = [table.replace(b"a/data/0", b"a/%06d" % i) for i in range(count)]
    return good[: end - len(table)] + _table(b"".join(entries), count, end - len(table))


def _table(table: bytes, count: int, at: int) -> bytes:
    count = min(count, 0xFFFF)
    return table + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(table), at, 0)


def long_table(rng: np.random.Generator) -> bytes:
    """A table of contents of many entries without content."""
    name = b"a"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *(0,) * 6, 0, 0, 0, len(name), *(0,) * 4, 0, 0)
    count = some(rng, 1000, 80_000)
    return b"PK\3\4" + bytes(26) + _table((entry + name) * count, count, 30)


def deflated_zeros(rng: np.random.Generator) -> bytes:
    """A thousand times as many zeros as bytes."""
    zeros = np.zeros(some(rng, 2**16, 2**23), np.float32)
    entries = {"a/data.pkl": bytes(10**7), "a/data/0": bytes(10**7)}
    return _zip(entries, zipfile.ZIP_DEFLATED) if rng.random() < 0.3 else _deflated(zeros)


def _deflated(array: np.ndarray) -> bytes:
    return _npz({"a": array}, zipfile.ZIP_DEFLATED)


def other_compressions(rng: np.random.Generator) -> bytes:
    """Compressions that take memory of their own."""
    how = (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)[int(rng.integers(2))]
    return _zip({"a/data.pkl": bytes(10**6), "a.npy": bytes(10**6)}, how)


def strange_names(rng: np.random.Generator) -> bytes:
    """Names that lead elsewhere, or are twice there."""
    names = ("../../etc/passwd", "/etc/x", "a\nb.npy", "a" * 60_000, " ", "a/../data.pkl", "a\0b")
    name = names[int(rng.integers(len(names)))]
    return _zip({name: rng.bytes(100), "b/data.pkl": b"}.", "c/data.pkl": b"}."})


def npy_header(rng: np.random.Generator) -> bytes:
    """Headers of arrays that promise what is not there, or are expressions."""
    headers = (
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4)}",
        "{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': True, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9999999999999)}",
        "{'descr': '<U2000000000', 'fortran_order': False, 'shape': (0,)}",
        "{'descr': '<f4', 'fortran_order': __import__('os').system('true'), 'shape': ()}",
        "(" * 3000,
        "-" * 9000 + "1",
        "[" * 150 + "]" * 150,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 3000 + ")}",
    )
    text = headers[int(rng.integers(len(headers)))].encode()
    length = struct.pack("<I", int(rng.choice([len(text), 2**31, 2**32 - 1, 10**7])))
    magic = b"\x93NUMPY" + bytes([int(rng.choice([2, 3, 9])), 0])
    content = magic + length + text + bytes(int(rng.choice([0, 16, 2**20])))
    return _zip({"a.npy": content}, int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))


def npy_objects(rng: np.random.Generator) -> bytes:
    """An array of objects, which are a pickle."""
    attack = PICKLES[int(rng.integers(len(PICKLES)))](rng)
    file = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(file, header)
    return _zip({"a.npy": file.getvalue() + attack})


def many_arrays(rng: np.random.Generator) -> bytes:
    """Arrays that are smaller than what describes them."""
    return _npz({str(i): np.zeros(0) for i in range(some(rng, 100, 3000))})


# safetensors.


def _headed(header: bytes, length: int | None = None, data: bytes = bytes(64)) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensor_tables(rng: np.random.Generator) -> bytes:
    """Tables of tensors that overlap, are too large or are no tables."""
    one = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    changes: tuple[Any, ...] = (
        {"shape": [2**62, 4]},
        {"shape": [-4]},
        {"shape": [2**32, 2**32, 0]},
        {"shape": [4.0]},
        {"data_offsets": [16, 0]},
        {"data_offsets": [0, 2**63]},
        {"data_offsets": [8, 24]},
        {"dtype": "F8_E4M3"},
        {"dtype": "F4"},
        {"dtype": "NONE"},
        {"shape": [1] * 100_000},
        {"more": {"deep": 1}},
    )
    change = changes[int(rng.integers(len(changes)))]
    names = ("a", "a\nb", "a" * 10_000, "\0", "__metadata__")
    name = names[int(rng.integers(len(names)))]
    return _headed(json.dumps({"b": one, name: {**one, **change}}).encode())


def json_bombs(rng: np.random.Generator) -> bytes:
    """JSON that is deep, long or not text."""
    count = some(rng, 10, 10**6)
    headers = (
        b'{"a":' + b"[" * count,
        b'{"a":' * count,
        b'{"__metadata__":{' + b'"a":"b",' * count + b'"b":"c"}}',
        b'{"a":{"dtype":"F32","shape":[' + b"1," * count + b'1],"data_offsets":[0,4]}}',
        b"{" + b" " * count,
        b'{"' + rng.bytes(100),
        b'{"a":' + b"9" * count + b"}",
    )
    return _headed(headers[int(rng.integers(len(headers)))])


def header_lengths(rng: np.random.Generator) -> bytes:
    """A header that is not there."""
    return _headed(b"{}" + b" " * 100, int(rng.choice(COUNTS[:-1])))


def many_tensors(rng: np.random.Generator) -> bytes:
    """Tensors that are smaller than what describes them."""
    count = some(rng, 10, 20_000)
    one = '"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return _headed(("{" + ",".join(one % i for i in range(count)) + "}").encode(), data=b"")


# MXNet.


def params_counts(rng: np.random.Generator) -> bytes:
    """Counts of arrays, axes and letters that are not there."""
    data = bytearray(params({"arg:a": np.ones((2, 3), np.float32)}, int(rng.integers(4))))
    at = int(rng.choice([16, 24, 28, 32, 36, 40, 48, 56, len(data) - 21, len(data) - 13]))
    value = int(rng.choice(COUNTS))
    width = int(rng.choice([4, 8]))
    data[at : at + width] = (value % 256**width).to_bytes(width, "little")
    return bytes(data)


def many_params(rng: np.random.Generator) -> bytes:
    """Arrays without numbers, of twenty bytes each, or none at all."""
    count = some(rng, 10, 10**5)
    one = struct.pack("<IIiii", 1, 0, 1, 0, 0) if rng.random() < 0.5 else struct.pack("<I", 0)
    names = b"".join(struct.pack("<Q", 6) + b"%06d" % i for i in range(count))
    lists = struct.pack("<Q", count) + one * count + struct.pack("<Q", count) + names
    return struct.pack("<QQ", LIST_MAGIC, 0) + lists


def strange_params(rng: np.random.Generator) -> bytes:
    """Types, storage and names that do not exist."""
    flag, stored = int(rng.integers(-1, 20)), int(rng.integers(-1, 3))
    axes = rng.choice([0, 2, 3, 2**40, -1], size=2).tolist()
    array = struct.pack("<Iiiqq", MAGIC[int(rng.integers(2, 4))], stored, 2, *axes)
    array += struct.pack("<iii", 1, 0, flag) + bytes(48)
    name = rng.bytes(5)
    lists = struct.pack("<Q", 1) + array + struct.pack("<QQ", 1, len(name)) + name
    return struct.pack("<QQ", LIST_MAGIC, 0) + lists


ARCHIVES: tuple[Attack, ...] = (
    overlapping_entries,
    long_table,
    deflated_zeros,
    other_compressions,
    strange_names,
    npy_header,
    npy_header,
    npy_objects,
    many_arrays,
)
"""Attacks on readers of ``.npz``."""

_ATTACKS: dict[str, tuple[Attack, ...]] = {
    "torch legacy": tuple(_with_pickle(_in_legacy, attack) for attack in PICKLES),
    "torch zip": (*(_with_pickle(_in_zip, attack) for attack in PICKLES), *ARCHIVES[:5]),
    "npz": ARCHIVES,
    "safetensors": (tensor_tables, tensor_tables, json_bombs, header_lengths, many_tensors),
    "mxnet": (params_counts, params_counts, many_params, strange_params),
}


def _read(path: Path) -> object:
    """Reads a checkpoint and touches its numbers."""
    arrays = read_checkpoint(path).arrays.values()
    return sum(np.count_nonzero(array) for array in arrays if array.dtype.kind != "O")


def sharded_index(rng: np.random.Generator) -> bytes:
    """Indices that name files elsewhere, or no files."""
    names = ("../a.safetensors", "/etc/passwd", "", ".", "..", "a\0b", 1, None, ["a"], {}, "a\nb")
    chosen = [names[int(i)] for i in rng.integers(len(names), size=3)]
    places = (dict(zip("abc", chosen, strict=True)), chosen, None, {"a": {}})
    return json.dumps({"weight_map": places[int(rng.integers(4))]}).encode()


@functools.cache
def _sharded() -> Sequence[Files]:
    arrays = {name: np.ones((3, 2), np.float32) for name in ("a.weight", "b.weight")}
    places = {name: f"model-{i}.safetensors" for i, name in enumerate(arrays)}
    files = {places[n]: safetensors.numpy.save({n: one}) for n, one in arrays.items()}
    index = json.dumps({"metadata": {"total_size": 48}, "weight_map": places}).encode()
    return [{"model.safetensors.index.json": index, **files}]


def _read_sharded(path: Path) -> object:
    with contextlib.suppress(OSError):  # as where it is asked for
        digest(path)
    return _read(path)


def _kind(form: str) -> Kind:
    return Kind(
        f"weights ({form})",
        lambda: single("checkpoint", *seeds(form)),
        _read,
        _ATTACKS[form],
        times=2,
        spare=16 << 20,
        reads_only=True,
    )


KINDS = (
    *map(_kind, FORMS),
    Kind("weights in shards", _sharded, _read_sharded, (sharded_index,), 2, 16 << 20),
)
