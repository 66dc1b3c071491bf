"""Checkpoints of every format are read bit for bit, or refused in one line."""

import hashlib
import json
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tests.reference.mxnet_files import MAGIC as MXNET
from tests.reference.mxnet_files import params, write_params
from tests.reference.torch_files import (
    state_dict,
    tensor,
    write_legacy,
    write_zip,
)
from tests.weights.checkpoints import ARRAYS, RNG, assert_equal_bits
from wsss_jax.errors import UserError
from wsss_jax.weights.checkpoint import digest, holds_weights, read_checkpoint


def test_npz(tmp_path: Path):
    arrays = {name: array for name, array in ARRAYS.items() if name != "fc.weight"}
    arrays["fortran"] = np.asfortranarray(RNG.standard_normal((3, 2)))
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "w.npz", allow_pickle=False, **arrays)
        found = read_checkpoint(tmp_path / "w.npz")
        assert found.format == "npz"
        assert_equal_bits(found.arrays, arrays)


def test_our_own_weights_are_known(tmp_path: Path):
    np.savez(tmp_path / "w.npz", allow_pickle=False, **{"params/backbone/conv/kernel": np.ones(3)})
    assert read_checkpoint(tmp_path / "w.npz").format == "wsss_jax"


def test_safetensors(tmp_path: Path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "w", metadata={"format": "np"})
    found = read_checkpoint(tmp_path / "w")
    assert found.format == "safetensors"
    assert found.metadata == {"format": "np"}
    assert_equal_bits(found.arrays, ARRAYS)


def test_a_sharded_folder(tmp_path: Path):
    places = {}
    for number, (name, array) in enumerate(ARRAYS.items()):
        file = f"model-{number}.safetensors"
        safetensors.numpy.save_file({name: array}, tmp_path / file)
        places[name] = file
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert_equal_bits(read_checkpoint(tmp_path).arrays, ARRAYS)
    places["more"] = places["count"]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UserError, match="arrays that the index names"):
        read_checkpoint(tmp_path)
    places["count"] = "../outside.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UserError, match="files beside the index"):
        read_checkpoint(tmp_path)
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("pipe.safetensors", "zero\0.safetensors"):
        places["count"] = name
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        with pytest.raises(UserError, match=r"expected a file '(pipe|zero).*beside the index"):
            read_checkpoint(tmp_path)


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_folder_of_shards_in_pytorchs_forms(write: Any, tmp_path: Path):
    places = {}
    for number, (name, array) in enumerate(ARRAYS.items(), 1):
        places[name] = f"pytorch_model-{number:05}-of-{len(ARRAYS):05}.bin"
        write(tmp_path / places[name], state_dict({name: array}))
    with pytest.raises(UserError, match=r"found only shards, such as pytorch_model-00001-of-"):
        read_checkpoint(tmp_path)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    for path in (tmp_path, index):
        found = read_checkpoint(path)
        assert found.format == ("torch zip" if write is write_zip else "torch legacy")
        assert found.path == index and found.sha256 == digest(path)
        assert_equal_bits(found.arrays, ARRAYS)
    assert holds_weights(tmp_path)
    shard = tmp_path / sorted(places.values())[0]
    for read in (digest, read_checkpoint):
        with pytest.raises(UserError, match=f"found one of its shards, {shard}: name the folder"):
            read(shard)
    alone = tmp_path / "model-00001-of-00001.safetensors"  # It is the only one.
    safetensors.numpy.save_file(ARRAYS, alone)
    assert_equal_bits(read_checkpoint(alone).arrays, ARRAYS)


@pytest.mark.parametrize("suffix", [".PTH", ".Pt", ".BIN"])
def test_suffixes_may_have_capitals(suffix: str, tmp_path: Path):
    write_zip(tmp_path / f"x{suffix}", state_dict(ARRAYS))
    assert holds_weights(tmp_path)
    assert_equal_bits(read_checkpoint(tmp_path).arrays, ARRAYS)


def test_a_folder_means_its_one_file(tmp_path: Path):
    with pytest.raises(UserError, match="found none: name the file"):
        read_checkpoint(tmp_path)
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    assert read_checkpoint(tmp_path).path == tmp_path / "a.npz"
    np.savez(tmp_path / "b.npz", a=np.ones(3))
    with pytest.raises(UserError, match=r"found a\.npz, b\.npz: name the file"):
        read_checkpoint(tmp_path)
    safetensors.numpy.save_file(ARRAYS, tmp_path / "model.safetensors")
    assert read_checkpoint(tmp_path).format == "safetensors"


def test_files_that_are_no_weights(tmp_path: Path):
    with pytest.raises(UserError, match="no such file"):
        read_checkpoint(tmp_path / "absent.npz")
    path = tmp_path / "file"
    for content, message in (
        (b"", "found an empty file: get it again"),
        (b"not an archive", "begins with b'not an a'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "found a web page"),
        (b"PK\x03\x04 and so on", "damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_checkpoint(path)
    np.savez(tmp_path / "objects.npz", a=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="expected plain numbers"):
        read_checkpoint(tmp_path / "objects.npz")
    np.savez(tmp_path / "whole.npz", a=np.arange(1000))
    path.write_bytes((tmp_path / "whole.npz").read_bytes()[:-100])
    with pytest.raises(UserError, match="cut off"):
        read_checkpoint(path)


def test_changed_numbers_have_another_checksum(tmp_path: Path):
    write_zip(tmp_path / "w", {"a": tensor(np.full(8, 7.0))})
    data = (tmp_path / "w").read_bytes()
    assert data.count(np.full(8, 7.0).tobytes()) == 1
    changed = data.replace(np.full(8, 7.0).tobytes(), np.full(8, 6.0).tobytes())
    (tmp_path / "w").write_bytes(changed)
    with pytest.raises(UserError, match="data/0 with its checksum, found changed bytes"):
        read_checkpoint(tmp_path / "w")
    with zipfile.ZipFile(tmp_path / "w") as archive:
        checksum = archive.getinfo("archive/data/0").CRC.to_bytes(4, "little")
    (tmp_path / "w").write_bytes(changed.replace(checksum, bytes(4)))  # left out
    assert_equal_bits(read_checkpoint(tmp_path / "w").arrays, {"a": np.full(8, 6.0)})


@pytest.mark.parametrize("form", ["zip", "legacy", "npz", "safetensors", "mxnet"])
def test_memory_is_that_of_the_arrays(tmp_path: Path, form: str):
    arrays = {str(number): np.full(2**20, number, np.float32) for number in range(6)}
    path = tmp_path / "w"
    if form == "npz":
        np.savez(tmp_path / "w.npz", allow_pickle=False, **arrays)
        path = tmp_path / "w.npz"
    elif form == "safetensors":
        safetensors.numpy.save_file(arrays, path)
    elif form == "mxnet":
        write_params(path, arrays)
    else:
        (write_zip if form == "zip" else write_legacy)(path, state_dict(arrays))
    tracemalloc.start()
    read_checkpoint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * path.stat().st_size


@pytest.mark.parametrize("version", range(4))
def test_params_of_mxnet(tmp_path: Path, version: int):
    arrays = {
        "arg:conv_weight": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "arg:conv_bias": RNG.standard_normal(4).astype(np.float16),
        "aux:bn_moving_mean": RNG.standard_normal(4).astype(ml_dtypes.bfloat16),
        "plain": np.arange(6).reshape(1, 2, 3),
        **{
            np.dtype(kind).name: np.arange(3).astype(kind)
            for kind in ("f8", "u1", "i4", "i1", "?", "i2", "u2", "u4", "u8")
        },
    }
    if version == 3:  # the only one that has numbers without axes
        arrays["scalar"] = np.array(2.5)
    write_params(tmp_path / "w", {**arrays, "absent": None}, version)
    found = read_checkpoint(tmp_path / "w")
    assert found.format == "mxnet"
    names = {name.removeprefix("arg:").removeprefix("aux:"): a for name, a in arrays.items()}
    assert_equal_bits(found.arrays, names)


def test_damaged_params(tmp_path: Path):
    path = tmp_path / "w"
    whole = params({"arg:a": np.ones((2, 3), np.float32)}, 2)
    magic = MXNET[2].to_bytes(4, "little")
    sparse = whole.replace(magic + b"\0", magic + b"\1")
    for content, message in (
        (whole[:-3], "end of the file"),
        (whole + b"1234", "4 more bytes"),
        (params({"arg:a": np.ones(2), "aux:a": np.ones(2)}, 2), "found a twice"),
        (sparse, "found a sparse one"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_checkpoint(path)


def test_a_large_file_is_read_again_only_if_it_has_changed(tmp_path, monkeypatch):
    path, size = tmp_path / "large.pth", 1 << 26
    path.touch()
    os.truncate(path, size)  # It takes no room on the disk.
    first, read, plain = digest(path), [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: read.append(a) or plain(*a))
    assert digest(path) == first and not read
    with path.open("r+b") as file:
        file.write(b"1")
    assert digest(path) == hashlib.sha256(path.read_bytes()).hexdigest() != first
    assert len(read) == 1


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": ["a"]},
        {"weight_map": None},
        {"weight_map": {}},
        {"weight_map": {"a": {}}},
        {"weight_map": {"a": ""}},
        {"weight_map": {"a": "../a.safetensors"}},
        {"other": 1},
        [],
    ],
)
def test_an_index_of_another_form_is_one_line(index: Any, tmp_path: Path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    for read in (digest, read_checkpoint):
        with pytest.raises(UserError, match="expected the files of arrays in"):
            read(tmp_path)
