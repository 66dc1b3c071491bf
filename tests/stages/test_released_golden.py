"""The authors' values come out of the released recipes, from files with the authors' names."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.reference import authors_names, torch_files
from tests.reference.drawing import draw
from tests.reference.drawn_networks import Images, context
from tests.reference.golden_weights import torch_shape
from tests.toys.compiler import QUICK
from tests.toys.photographs import few_photographs
from wsss_jax import main
from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.files import read_json, write_json
from wsss_jax.inference.network import read_network
from wsss_jax.methods.affinity import Affinity
from wsss_jax.methods.base import Method
from wsss_jax.methods.irnet import IrNet
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.ops.pair_affinity import feature_affinity, pair_mask
from wsss_jax.ops.resize import resize_bilinear
from wsss_jax.pipeline.config import load_config
from wsss_jax.stages.released import Released
from wsss_jax.weights.import_weights import torch_names

Arrays = Mapping[str, np.ndarray]


class VocImages(Images):
    classes = VOC_CLASSES


def drawn(method: Method, seed: int, renamed: Callable[[Arrays], dict[str, Any]]) -> dict[str, Any]:
    """The arrays of the authors' file, each drawn from its first name there."""
    params, variables = variable_shapes(method)
    flat: dict[str, Any] = traverse_util.flatten_dict({"params": params, **variables}, sep="/")
    names = torch_names({"params": params, **variables}, method.backbone)
    shapes = {
        name: np.broadcast_to(np.float32(0), torch_shape(flat[p].shape))
        for p, name in names.items()
    }
    # Where a program saves an array under several names, its first name is that of the values.
    found: dict[str, Any] = {}
    for name, like in shapes.items():
        others = [other for other in renamed({name: like}) if "num_batches" not in other]
        values = draw(next(iter(others)), like.shape, seed)
        found |= dict.fromkeys(others, values)
    return {**renamed(shapes), **found}


def released(
    folder: Path, recipe: str, stage: str, seed: int, renamed: Callable[[Arrays], Any] = dict
) -> tuple[Any, Any]:
    """The method and the weights that the recipe's stage leaves for others."""
    config: Any = load_config(recipe)
    section = config[stage].method.to_dict()
    method = Method.from_config(section, "method", num_classes=20)
    path = folder / "network.pth"
    torch_files.write_legacy(path, torch_files.state_dict(drawn(method, seed, renamed)))
    settings = {**config[stage].to_dict(), "weights": str(path)}
    ctx = context(folder, VocImages((8, 8)))
    ctx = dataclasses.replace(ctx, stage=stage)
    Released.from_config(settings).run(ctx, {})
    write_json(folder / "config.json", {"method": section})
    return read_network(folder, 20, method.outputs[0])


def quick(function: Any, *arguments: Any) -> Any:
    """The result of a program that runs once: not worth optimizing."""
    program = jax.jit(function).lower(*arguments)
    return program.compile(compiler_options=QUICK)(*arguments)


def close(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_seam(shared: Path, tmp_path: Path):
    golden = np.load(shared / "golden" / "seam.npz")
    method, weights = released(tmp_path, "seam_voc_released", "maps_network", int(golden["seed"]))
    image = jnp.asarray(golden["image"])
    found = quick(method.model().apply, weights, image)
    size = (image.shape[1], image.shape[2])
    for name, expected in (("cam", "cam1"), ("cam_rv", "cam_rv1")):
        close(resize_bilinear(found[name], size, align_corners=True), golden[expected])


@pytest.mark.slow
def test_ssenet(shared: Path, tmp_path: Path):
    golden = np.load(shared / "golden" / "ssenet.npz")
    method, weights = released(tmp_path, "ssenet_voc_released", "maps_network", int(golden["seed"]))
    image = jnp.asarray(golden["image"])
    found = quick(method.model().apply, weights, image)
    size = (image.shape[1], image.shape[2])
    close(resize_bilinear(found, size, align_corners=False), golden["cam"])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["seam_voc_released", "ssenet_voc_released"])
def test_affinitynet(recipe: str, shared: Path, tmp_path: Path):
    golden = np.load(shared / "golden" / "affinity.npz")
    method, weights = released(tmp_path, recipe, "walk_network", int(golden["seed"]))
    assert isinstance(method, Affinity)
    features = quick(method.model().apply, weights, jnp.asarray(golden["image"]))
    affinity = np.asarray(feature_affinity(features) * pair_mask((16, 14), jnp.asarray([[16, 14]])))
    close(affinity[0, :12, 4:10].reshape(72, 34).T, golden["aff"])


@pytest.mark.slow
def test_irnets_cam(shared: Path, tmp_path: Path):
    golden = np.load(shared / "golden" / "irn.npz")
    names = lambda arrays: authors_names.irn(arrays, cam=True)  # noqa: E731
    seed = int(golden["seed"])
    method, weights = released(tmp_path, "irn_voc_released", "maps_network", seed, names)
    image = jnp.asarray(golden["image"])
    pair = jnp.concatenate([image, image[:, :, ::-1]])
    cam = jax.nn.relu(quick(method.model().apply, weights, pair))
    close(cam[0] + cam[1, :, ::-1], golden["cam"])


@pytest.mark.slow
def test_irnet(shared: Path, tmp_path: Path):
    golden = np.load(shared / "golden" / "irn.npz")
    names = lambda arrays: authors_names.irn(arrays, cam=False)  # noqa: E731
    seed = int(golden["seed"])
    method, weights = released(tmp_path, "irn_voc_released", "walk_network", seed, names)
    assert isinstance(method, IrNet) and method.canvas == 512
    image = jnp.asarray(golden["image"])
    smaller = dataclasses.replace(method, canvas=128)  # that of the reference values
    maps = quick(smaller.maps, weights, image, jnp.ones(image.shape[:3], bool))
    close(maps["boundary"][0, ..., 0], golden["edge"])
    close(maps["displacement"][0], golden["displacement"])


@pytest.mark.slow
def test_a_whole_recipe_on_a_handful_of_photographs(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Files are found in the folder of weights by the names under which they are published."""
    config: Any = load_config("seam_voc_released")
    monkeypatch.setenv("WSSS_JAX_WEIGHTS", str(tmp_path))
    for stage, file in (("maps_network", "SEAM"), ("walk_network", "aff_SEAM")):
        section = config[stage].method.to_dict()
        method = Method.from_config(section, "method", num_classes=20)
        arrays = drawn(method, 0, dict)
        torch_files.write_zip(tmp_path / f"resnet38_{file}.pth", torch_files.state_dict(arrays))
    workdir = tmp_path / "run"
    command = ["main", "--config=seam_voc_released", f"--workdir={workdir}"]
    command += few_photographs(shared, tmp_path, 2)
    command += ["--config.cam.scales=(0.25,)", "--config.cam.flip=False", "--config.walk.steps=4"]
    assert main.main(command) == 0, capsys.readouterr().err
    results = read_json(workdir / "results.json")["stages"]
    assert results["maps_network"]["metrics"]["parameters"] == 105_358_208
    for stage in ("eval_cam", "eval_walk"):
        assert 0 <= results[stage]["metrics"]["miou"] <= 1
    assert len(list((workdir / "walk" / "masks").glob("*.png"))) == 2
    assert (workdir / "report.html").is_file()
    # What a file contains counts, and not its name.
    (tmp_path / "resnet38_aff_SEAM.pth").rename(tmp_path / "other.pth")
    again = [*command, f"--config.walk_network.weights={tmp_path / 'other.pth'}"]
    assert main.main(again) == 0, capsys.readouterr().err
    assert read_json(workdir / "results.json")["stages"] == results
