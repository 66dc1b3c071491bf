"""Published networks, with their heads, under the names of their authors' programs."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import traverse_util

from tests.models.test_every_backbone import narrow_resnet38
from tests.reference import authors_names, torch_files
from tests.reference.drawn_networks import CLASSES, TEN, Images, Trained, context
from tests.reference.golden_weights import drawn_arrays
from tests.toys.sections import run_section, stage_of
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.models import resnet
from wsss_jax.models.torch_names import from_torch_layout
from wsss_jax.stages.base import Need
from wsss_jax.stages.infer_cam import InferCam
from wsss_jax.stages.released import Released
from wsss_jax.stages.train import Train
from wsss_jax.weights.import_weights import torch_names

TINY = dict(name="tiny", width=8)
CAM = dict(name="cam", backbone=TINY)


def method_of(section: dict[str, Any], classes: int = CLASSES) -> Method:
    return Method.from_config(section, "method", num_classes=classes)


def shapes_of(section: dict[str, Any], classes: int = CLASSES) -> Any:
    params, variables = variable_shapes(method_of(section, classes))
    return {"params": params, **variables}


def drawn(section: dict[str, Any], seed: int = 0, classes: int = CLASSES) -> dict[str, np.ndarray]:
    """The arrays of a method's network by our names in files, in PyTorch's layout."""
    return drawn_arrays(shapes_of(section, classes), method_of(section).backbone, seed)


def taken_over(folder: Path, section: dict[str, Any], arrays: Any) -> dict[str, Any]:
    """The figures of the stage, for a file in the form of PyTorch before 1.6."""
    path = folder / "network.pth"
    torch_files.write_legacy(path, torch_files.state_dict(arrays))
    settings = dict(method=section, weights=str(path))
    return run_section(Released, context(folder, Images((8, 8))), settings, {})


def check(folder: Path, section: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """The stage left every array of `arrays`, which has our names, in its place."""
    with np.load(folder / "weights.npz") as file:
        found = dict(file)
    names = torch_names(shapes_of(section), method_of(section).backbone)
    assert set(found) == set(names)
    for path, name in names.items():
        np.testing.assert_array_equal(found[path], from_torch_layout(arrays[name]), err_msg=path)


def few_blocks(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(resnet.BLOCKS, 50, (1, 1, 1, 1))


RESNET = dict(name="resnet")
RESNET38 = dict(name="resnet38")
VGG = dict(name="vgg16", pixels="caffe", fc_dilation=4)
AUTHORS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "irn_cam": (
        few_blocks,
        functools.partial(authors_names.irn, cam=True),
        dict(name="cam", backbone=RESNET, dropout=0.0),
    ),
    "irn": (
        few_blocks,
        functools.partial(authors_names.irn, cam=False),
        dict(name="irnet", backbone=RESNET),
    ),
    "seam": (narrow_resnet38, dict, dict(name="seam", backbone=RESNET38)),
    "ssenet": (narrow_resnet38, dict, dict(name="ssenet", backbone=RESNET38)),
    "affinity": (narrow_resnet38, dict, dict(name="affinity", backbone=RESNET38)),
    "deeplab_v1": (
        narrow_resnet38,
        authors_names.deeplab_v1,
        dict(name="segmentation", backbone=RESNET38, head=dict(name="large_fov", features=8)),
    ),
}


@pytest.mark.parametrize("name", AUTHORS)
def test_every_array_of_an_authors_file_has_its_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    change, renamed, section = AUTHORS[name]
    change(monkeypatch)
    arrays = drawn(section)
    figures = taken_over(tmp_path, section, renamed(arrays))
    check(tmp_path, section, arrays)
    (about,) = figures["initial_weights"]
    assert about["format"] == "torch legacy" and about["matched"] == len(arrays)
    assert about["file"] == "network.pth" and not about["unexpected"]
    assert figures["classes"] == list(TEN.classes)
    sizes = [array.size for name, array in arrays.items() if "running" not in name]
    assert figures["parameters"] == sum(sizes)


def test_psas_network_on_vgg16_has_its_own_names(tmp_path: Path, monkeypatch: Any):
    """Its layers are called as in Caffe, and group norms follow those of AffinityNet."""
    monkeypatch.setattr("wsss_jax.models.vgg16.LEVELS", ((4, 2), (4, 2), (4, 3), (8, 3), (8, 3)))
    section = dict(name="affinity", backbone=dict(VGG, fc_features=16), groups=(8, 16, 32))
    shapes = {
        f"conv{level}_{n}": 0 for level, k in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, k + 1)
    }
    arrays = drawn(section)
    expected = {
        f"{layer}.{leaf}" for layer in (*shapes, "fc6", "fc7") for leaf in ("weight", "bias")
    }
    expected |= {f"{layer}.weight" for layer in ("f8_3", "f8_4", "f8_5", "f9")}
    expected |= {f"gn8_{n}.{leaf}" for n in (3, 4, 5) for leaf in ("weight", "bias")}
    assert set(arrays) == expected
    taken_over(tmp_path, section, arrays)
    check(tmp_path, section, arrays)


def test_other_stages_use_it_as_a_trained_network(tmp_path: Path):
    trained = Trained(tmp_path / "trained", "cam", "tiny")
    names = torch_names(trained.weights, trained.method.backbone)
    flat: dict[str, Any] = traverse_util.flatten_dict(trained.weights, sep="/")
    arrays = {
        name: flat[path].transpose(3, 2, 0, 1) if flat[path].ndim == 4 else flat[path]
        for path, name in names.items()
    }
    folder = tmp_path / "released"
    folder.mkdir()
    taken_over(folder, CAM, arrays)
    write_json(folder / "config.json", {"method": CAM})
    settings = dict(split="train", scales=(1.0,), max_buckets=1)
    for name, checkpoint in (("a", trained.folder), ("b", folder)):
        ctx = context(tmp_path / name, TEN)
        run_section(InferCam, ctx, settings, {"checkpoint": checkpoint})
    made = sorted((tmp_path / "a" / "cams").iterdir())
    assert len(made) == 10
    for path in made:
        assert path.read_bytes() == (tmp_path / "b" / "cams" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("file", "asked", "message"),
    [
        ("seam", "cam", r"fc8\.weight .*4 classes with the background, where .* has 3 without it"),
        ("cam", "seam", r"missing: f8_3\.weight.*3 classes without the background.* has 4 with it"),
    ],
)
def test_a_class_for_the_background_is_named(file: str, asked: str, message: str, tmp_path: Path):
    fields = dict(backbone=TINY)
    with pytest.raises(UserError, match=message) as error:
        taken_over(tmp_path, dict(fields, name=asked), drawn(dict(fields, name=file)))
    assert "\n" not in str(error.value) and "network.pth" in str(error.value)


def test_what_does_not_belong_to_the_network_is_named(tmp_path: Path):
    arrays = drawn(CAM)
    for name, value, message in (
        ("fc8.weight", None, r"1 missing: fc8\.weight"),
        ("fc9.weight", np.zeros(3, np.float32), r"1 unexpected: fc9\.weight"),
        ("stem.weight", np.zeros((8, 3, 3, 3), np.float32), r"do not fit: stem\.weight \(expected"),
        ("stem_norm.bias", np.full(8, np.nan, np.float32), "expected finite numbers"),
    ):
        wrong = {n: a for n, a in {**arrays, name: value}.items() if a is not None}
        with pytest.raises(UserError, match=message):
            taken_over(tmp_path, CAM, wrong)
    with pytest.raises(UserError, match=r"do not fit: fc8\.weight \(expected \(1, 1, 32, 3\)"):
        taken_over(tmp_path, CAM, drawn(CAM, classes=20))


def test_what_cannot_work_is_refused_beforehand(tmp_path: Path):
    stage = stage_of(Released, dict(method=CAM, weights="resnet38_saem"))
    with pytest.raises(UserError, match=r"'resnet38_saem'; did you mean resnet38_seam"):
        stage.check({})
    with pytest.raises(UserError, match="which need resnet38"):
        stage_of(Released, dict(method=CAM, weights="resnet38_seam")).check({})
    with pytest.raises(UserError, match="expected weights of a released network, found none"):
        stage_of(Released, dict(method=CAM, weights="")).check({})
    path = tmp_path / "network.pth"
    stage = stage_of(Released, dict(method=CAM, weights=str(path)))
    stage.check({})
    assert stage.predictions() == ("cam",) and stage.files() == {"weights": str(path)}
    with pytest.raises(UserError, match="expected no needs of a released network, found needs"):
        stage.check({"init": Need("other", stage)})
    with pytest.raises(UserError, match=r"expected weights at .*network\.pth, found no such file"):
        stage.locate("weights")


def test_a_training_stage_can_start_from_it():
    section = dict(method=CAM, split="train", batch_size=2, steps=1, optimizer=dict(lr=0.1))
    stage = stage_of(Train, section)
    released = stage_of(Released, dict(method=CAM, weights="a.pth"))
    stage.check({"init": Need("network", released)})
    other = stage_of(Released, dict(method=dict(CAM, backbone=dict(TINY, width=16)), weights="a"))
    with pytest.raises(UserError, match=r"method\.backbone\.width=8, found network"):
        stage.check({"init": Need("network", other)})
