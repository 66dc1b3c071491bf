"""The command line for files of weights."""

import hashlib
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.reference.drawn_networks import Trained
from tests.toys.interpreters import other_python
from tests.weights.test_architectures import arrays_of
from wsss_jax import weights_command
from wsss_jax.files import write_json
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.models.base import Backbone
from wsss_jax.models.mobilenet_v2 import MobileNetV2
from wsss_jax.settings import read
from wsss_jax.weights.architectures import read_architecture
from wsss_jax.weights.checkpoint import read_checkpoint
from wsss_jax.weights.import_weights import import_arrays, import_backbone
from wsss_jax.weights.npz import save_weights
from wsss_jax.weights.published import PUBLISHED


def call(*arguments: object) -> int:
    return weights_command.main(["weights", *map(str, arguments)])


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert call(*arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1
    return told


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    """A finished training stage of a run."""
    folder = tmp_path / "run/train"
    folder.mkdir(parents=True)
    trained = Trained(folder, "segmentation", "tiny")
    write_json(folder / "_DONE.json", {})
    return trained


@pytest.mark.parametrize("command", ["list", "inspect", "convert", "export"])
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]):
    assert call(command, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: python -m wsss_jax.weights {command}")
    assert "examples:" in lines and "exit status:" in lines
    assert all(len(line) <= 100 for line in lines)


def test_the_module_is_the_command(monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["weights", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("wsss_jax.weights", run_name="__main__")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(f"wsss_jax.weights {name}" in text for name in ("list", "inspect", "convert"))
    assert "COMMAND is missing: one of list, inspect" in mistake(capsys)
    assert "did you mean inspect?" in mistake(capsys, "inspct")


def test_list_tells_all_of_the_catalogue(monkeypatch, tmp_path, capsys):
    (tmp_path / "resnet38.npz").write_bytes(b"PK")
    monkeypatch.setenv("WSSS_JAX_WEIGHTS", str(tmp_path))
    assert call("list") == 0
    text = capsys.readouterr().out
    for one in PUBLISHED:
        part = text[text.index(f"{one.name}  (") :].split("\n\n")[0]
        for told in (one.title, one.data, one.license, one.publisher, *one.recipes):
            assert told in part
    assert f"resnet38  (here: {tmp_path / 'resnet38.npz'})" in text
    assert "resnet101  (not here: get resnet101-63fe2227.pth)" in text
    # The backbones that are shown are those that --arch takes.
    shown = [line.split(maxsplit=1)[1] for line in text.splitlines() if "    backbone " in line]
    for one, name in zip(PUBLISHED, shown, strict=True):
        assert read_architecture(name) == read(Backbone, dict(one.backbone))
    # A file that is not the published one is told.
    (tmp_path / "resnet101-63fe2227.pth").write_bytes(b"cut off")
    assert call("list") == 0
    text = capsys.readouterr().out
    told = f"not usable: expected a sha256 that begins with 63fe2227, as the name of {tmp_path}"
    assert f"resnet101  ({told}/resnet101-63fe2227.pth says, found " in text


def test_inspect(stage: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = stage.folder / "weights.npz"
    assert call("inspect", file) == 0
    text = capsys.readouterr().out
    assert hashlib.sha256(file.read_bytes()).hexdigest() in text
    total = sum(a.size for a in read_checkpoint(file).arrays.values())
    assert f"33 with {total:,} numbers (float32)" in text
    assert "backbone  tiny,width=8: certain, 21 of its 21 arrays match" in text
    assert "left out 12: batch_stats/head/layer_0/norm/mean, " in text
    assert "params/backbone/layer_{0-1}/conv/kernel" in text
    assert call("inspect", file, "--arch", "tiny,width=16") == 0
    text = capsys.readouterr().out
    assert "tiny,width=16: 0 of its 21 arrays match" in text and "no fit 21: layer_0" in text
    assert "no such file" in mistake(capsys, "inspect", tmp_path / "absent")
    assert "FILE is missing" in mistake(capsys, "inspect")


def test_inspect_says_what_files_do_not_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arrays: Any = arrays_of(read_architecture("vit,width=64,depth=1,layer_scale=1e-6"))
    arrays |= {"scale": np.ones(3), "head.weight": np.ones((5, 64))}
    np.savez(tmp_path / "vit.npz", **arrays)
    assert call("inspect", tmp_path / "vit.npz") == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("backbone"))
    found = "vit,width=64,depth=1,layer_scale=1e-06"
    # DINOv2 has layer scale by default, so it needs no more settings than this.
    assert lines[start].startswith("backbone  ") and ": 95% sure, 20 of its 20" in lines[start]
    assert found in f"{lines[start]} {lines[start + 1]}"
    told = "head_width (64), position_resize (bicubic), activation (gelu), norm_epsilon (1e-06)"
    assert f"  check {told}: the file does not tell" in lines
    assert "  unexpected 1: scale" in lines and not any("left out" in line for line in lines)


def test_inspect_knows_published_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """By their names, which tell what arrays do not; if the arrays are those of the backbone."""
    monkeypatch.setenv("WSSS_JAX_WEIGHTS", str(tmp_path))
    arrays: Any = arrays_of(MobileNetV2())
    np.savez(tmp_path / "mobilenet_v2_torchvision.npz", **arrays)
    assert call("inspect", "mobilenet_v2_torchvision") == 0
    told = capsys.readouterr().out
    assert "backbone  mobilenet_v2,form=torchvision: certain, 260 of its 260 arrays match" in told
    assert (
        "  published as mobilenet_v2_torchvision, MobileNetV2, first weights" in told
        and "check" not in told
    )
    arrays = arrays_of(read_architecture("vit,width=64,depth=1"))
    np.savez(tmp_path / "mobilenet_v2_torchvision.npz", **arrays)
    assert call("inspect", "mobilenet_v2_torchvision") == 0
    told = capsys.readouterr().out
    assert "vit,width=64,depth=1: certain" in told and "published as" not in told


@pytest.mark.parametrize("part", ["network", "backbone"])
def test_exported_networks_are_the_same_bits(stage: Any, tmp_path: Path, part: str):
    before = dict(np.load(stage.folder / "weights.npz"))
    params, others = variable_shapes(stage.method)
    shapes = {"params": params, **others}
    if part == "backbone":
        before = {name: a for name, a in before.items() if name.split("/")[1] == "backbone"}
        shapes = {c: {"backbone": t["backbone"]} for c, t in shapes.items() if "backbone" in t}
    for form, out in (
        ("safetensors", tmp_path / "a.safetensors"),
        ("torch-names", tmp_path / "b.safetensors"),
        ("torch-names", tmp_path / "c.npz"),
    ):
        # The folder of the run and that of the stage name the same network.
        where = stage.folder.parent if out.suffix == ".npz" else stage.folder
        assert call("export", where, "--to", form, "--out", out, "--part", part) == 0
        read = read_checkpoint(out)
        again = import_arrays(shapes, read.arrays, backbone=stage.method.backbone)
        save_weights(tmp_path / "again.npz", again.pop("params"), again)
        after = dict(np.load(tmp_path / "again.npz"))
        assert after.keys() == before.keys()
        for name, array in before.items():
            np.testing.assert_array_equal(after[name], array)
        if form == "safetensors":
            assert set(load_file(out)) == set(before)
        elif out.suffix == ".safetensors":
            with safe_open(out, framework="np") as file:
                assert file.metadata()["format"] == "pt"
                assert file.metadata()["architecture"] == "tiny,width=8"
            kernel = read.arrays["layer_0.conv.weight"]
            expected = before["params/backbone/layer_0/conv/kernel"].transpose(3, 2, 0, 1)
            np.testing.assert_array_equal(kernel, expected)
            assert ("head.classifier.weight" in read.arrays) == (part == "network")


TORCH = """
import sys, timm
from safetensors.torch import load_file
model = timm.create_model("vit_tiny_patch16_224", pretrained=False)
print(*model.load_state_dict(load_file(sys.argv[1]), strict=False))
print(model.blocks[3].mlp.fc1.weight[5, 7].item())
"""


@pytest.mark.slow
def test_timm_loads_an_exported_backbone(tmp_path: Path):
    python = other_python("WSSS_TORCH_PYTHON", "timm")
    description = dict(name="cam", backbone=dict(name="vit", width=192))
    method = Method.from_config(description, num_classes=3)
    params, others = variable_shapes(method)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda like: rng.normal(size=like.shape).astype(np.float32), params)
    save_weights(tmp_path / "run/train/weights.npz", params, others)
    write_json(tmp_path / "run/train/config.json", {"method": description})
    write_json(tmp_path / "run/train/_DONE.json", {})
    out = tmp_path / "vit.safetensors"
    to = ("--to", "torch-names", "--part", "backbone", "--out", out)
    assert call("export", tmp_path / "run", *to) == 0
    run = subprocess.run(
        [python, "-c", TORCH, str(out)], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    keys, number = run.stdout.splitlines()
    assert keys == "['head.weight', 'head.bias'] []"  # missing, unexpected
    kernel = params["backbone"]["blocks_3"]["mlp_fc1"]["kernel"]
    assert float(number) == float(kernel[7, 5])


def test_convert(stage: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = tmp_path / "source.npz"
    assert call("export", stage.folder, "--to", "torch-names", "--out", source) == 0
    drawn: dict[str, Any] = dict(np.load(source))
    backbone = {name: a for name, a in drawn.items() if not name.startswith("head.")}
    halves = {f"module.{name}": a.astype(np.float16) for name, a in drawn.items()}
    given: dict[str, Any] = {**halves, "fc.weight": np.zeros((10, 4))}
    np.savez(source, **given)
    for names, out in (("torch", tmp_path / "a.safetensors"), ("ours", tmp_path / "b.npz")):
        arguments = ("--arch", "tiny,width=8", "--out", out, "--names", names)
        assert call("convert", source, *arguments) == 0
        told = capsys.readouterr().out
        # The head of the exported network, and that of another program.
        assert "13 left out: fc.weight, head.classifier.bias, " in told and f"in {out}" in told
        found = read_checkpoint(out).arrays
        assert len(found) == len(backbone)
        assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    written = load_file(tmp_path / "a.safetensors")
    for name, array in backbone.items():
        np.testing.assert_array_equal(written[name], array.astype(np.float16).astype(np.float32))
    # The weights of a run have a head, which is left out.
    of_run = ("--arch", "tiny,width=8", "--out", tmp_path / "c.safetensors")
    assert call("convert", stage.folder / "weights.npz", *of_run) == 0
    for name, array in load_file(tmp_path / "c.safetensors").items():
        np.testing.assert_array_equal(array, backbone[name])
    # One of several networks in a file.
    both = {f"student.{name}": -array for name, array in backbone.items()}
    both |= {f"teacher.module.{name}": array for name, array in backbone.items()}
    np.savez(source, **both)
    of_part = ("--arch", "tiny,width=8", "--out", tmp_path / "d.safetensors")
    told = mistake(capsys, "convert", source, *of_part)
    assert "student.layer_2" in told and "take one of its networks, FILE,part=student" in told
    assert call("convert", f"{source},part=teacher", *of_part) == 0
    for name, array in load_file(tmp_path / "d.safetensors").items():
        np.testing.assert_array_equal(array, backbone[name])
    capsys.readouterr()
    assert call("inspect", f"{source},part=teacher") == 0
    assert "tiny,width=8: certain, 21 of its 21 arrays match" in capsys.readouterr().out
    params, _ = variable_shapes(stage.method)
    loaded, _ = import_backbone(tmp_path / "b.npz", stage.method.backbone, params, {})
    kernel = loaded["backbone"]["layer_0"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, written["layer_0.conv.weight"].transpose(2, 3, 1, 0))


def test_mistakes(stage: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run, out = stage.folder.parent, tmp_path / "x.safetensors"
    to = ("--to", "torch-names", "--out")
    assert "ends in .safetensors or .npz" in mistake(capsys, "export", run, *to, tmp_path / "x.pth")
    plain = ("--to", "safetensors", "--out", tmp_path / "x.npz")
    assert "for --to safetensors" in mistake(capsys, "export", run, *plain)
    assert "found none" in mistake(capsys, "export", tmp_path / "absent", *to, out)
    assert "found train: name one" in mistake(capsys, "export", run, *to, out, "--stage", "x")
    (run / "second").mkdir()
    for name in ("weights.npz", "_DONE.json"):
        (run / "second" / name).write_bytes((stage.folder / name).read_bytes())
    assert "found second, train: name one with --stage" in mistake(capsys, "export", run, *to, out)
    wrong = ("--arch", "tiny,width=16", "--out", out)
    assert "that do not fit" in mistake(capsys, "convert", stage.folder / "weights.npz", *wrong)
    assert not out.exists()
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    # An output that is a folder is told before the weights are looked for.
    told = mistake(capsys, "convert", "absent.npz", "--arch", "tiny", "--out", folder)
    assert f"--out: expected a file to write, found the folder {folder}: name a file" in told
    assert f"found the folder {folder}" in mistake(capsys, "export", "absent", *to, folder)
