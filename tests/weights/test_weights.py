"""Files of weights: of this network, of a backbone alone, of another one, damaged."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.toys.toy_training import CLASSES, Toy, same, tiny_cam
from wsss_jax.errors import UserError
from wsss_jax.methods.base import Method
from wsss_jax.methods.seam import Seam
from wsss_jax.methods.variables import init_variables, variable_shapes
from wsss_jax.weights.npz import load_weights, save_weights


@pytest.fixture(scope="module")
def cam() -> Any:
    return tiny_cam()


def test_weights_of_another_network_are_refused(cam: Any, tmp_path: Path):
    shapes = variable_shapes(cam)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), shapes[0])
    save_weights(tmp_path / "weights.npz", params, {})
    loaded, _ = load_weights(tmp_path / "weights.npz", *shapes)
    assert same(loaded, params)
    for other in (
        dict(name="cam", backbone=dict(name="tiny", width=16)),
        dict(name="seam", backbone=dict(name="tiny", width=8)),
    ):
        with pytest.raises(
            UserError, match=r"weights of this network .* found those of another one"
        ):
            load_weights(
                tmp_path / "weights.npz",
                *variable_shapes(Method.from_config(other, num_classes=CLASSES)),
            )


def test_a_backbone_is_taken_over_alone(cam: Any, tmp_path: Path):
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: rng.normal(size=a.shape).astype(a.dtype), variable_shapes(cam)[0]
    )
    save_weights(tmp_path / "weights.npz", params, {})
    other = Seam(num_classes=CLASSES, backbone=cam.backbone)
    fresh, variables = init_variables(other, 0)
    loaded, _ = load_weights(tmp_path / "weights.npz", fresh, variables, "backbone")
    assert same(loaded["backbone"], params["backbone"])
    assert loaded.keys() == fresh.keys()
    assert all(same(loaded[name], fresh[name]) for name in fresh if name != "backbone")
    wider = Method.from_config(
        dict(name="cam", backbone=dict(name="tiny", width=16)), num_classes=CLASSES
    )
    with pytest.raises(UserError, match="weights of this backbone"):
        load_weights(tmp_path / "weights.npz", *variable_shapes(wider), "backbone")


def test_what_a_method_adds_may_be_lacking_as_a_whole(tmp_path: Path):
    def network(**layers: Any) -> Any:
        return {"fc8": {"kernel": np.zeros(2, np.float32)}, **layers}

    path, added = tmp_path / "weights.npz", {"a": np.ones(2), "b": np.ones(3)}
    save_weights(path, network(), {})
    loaded, _ = load_weights(path, network(new=added), {}, may_lack=("new",))
    assert loaded["new"]["a"] is added["a"] and not loaded["fc8"]["kernel"].any()
    for wrong in (network(other=added), network(new=added, other=added), {"new": added}):
        with pytest.raises(UserError, match="found those of another one"):
            load_weights(path, wrong, {}, may_lack=("new",))
    # A part of it is no network of either method; all of it is loaded.
    save_weights(path, network(new={"a": np.zeros(2)}), {})
    with pytest.raises(UserError, match=r"1 entries differ, such as params/new/b"):
        load_weights(path, network(new=added), {}, may_lack=("new",))
    save_weights(path, network(new={"a": np.zeros(2), "b": np.zeros(3)}), {})
    loaded, _ = load_weights(path, network(new=added), {}, may_lack=("new",))
    assert not any(array.any() for array in loaded["new"].values())


def test_damaged_weights_are_refused(tmp_path: Path):
    params, variables = init_variables(Toy(), 0)
    path = tmp_path / "weights.npz"
    with pytest.raises(UserError, match="found no such file: train first"):
        load_weights(path, params, variables)
    save_weights(path, params, variables)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"params/head") + 150] ^= 1  # in the numbers: the archive's checksum tells
    for content in (whole[: len(whole) // 2], b"", b"weights", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="found a damaged file"):
            load_weights(path, params, variables)


def with_kernel(path: Path, kernel: np.ndarray) -> tuple[Any, Any]:
    arrays: Any = {"params/a/kernel": kernel}
    np.savez_compressed(path, **arrays)
    return load_weights(path, {"a": {"kernel": np.ones((2, 2), np.float32)}}, {})


def test_numbers_of_another_kind_are_refused(tmp_path: Path):
    path = tmp_path / "weights.npz"
    for kind in (np.float16, np.float32, np.float64):
        assert with_kernel(path, np.ones((2, 2), kind))[0]["a"]["kernel"].dtype == kind
    for kind in (np.int32, np.bool_, np.complex64):
        with pytest.raises(UserError, match=r"another one \(1 entries differ"):
            with_kernel(path, np.ones((2, 2), kind))
    for kind in ("U4", "S4", object):
        with pytest.raises(UserError, match="found a damaged file"):
            with_kernel(path, np.ones((2, 2), kind))


def test_weights_that_unpack_to_more_than_the_file_justifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("wsss_jax.data.formats.npz.SPARE", 1 << 20)
    with pytest.raises(UserError, match="which the file does not justify"):
        with_kernel(tmp_path / "weights.npz", np.zeros((1 << 20), np.float32))


def test_plain_names_are_those_of_another_network(tmp_path: Path):
    path = tmp_path / "weights.npz"
    np.savez(path, foo=np.zeros(3, np.float32))
    kernel = {"fc8": {"kernel": np.zeros((1, 1, 2, 2), np.float32)}}
    with pytest.raises(UserError, match="found those of another one"):
        load_weights(path, kernel, {})
