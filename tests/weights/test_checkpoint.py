"""Checkpoints of every format are read bit for bit, unwrapped, or refused in one line."""

import json
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tests.toys.interpreters import other_python
from wsss_jax.errors import UserError
from wsss_jax.weights.checkpoint import read_checkpoint

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
