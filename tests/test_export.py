"""A network in one file makes, in a process without this package, the masks of its run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.reference.drawn_networks import Images, Trained, context
from tests.toys.records import finish
from tests.toys.sections import run_section
from wsss_jax import export
from wsss_jax.data.formats.cam_files import read_cams
from wsss_jax.data.masks import VOC_PALETTE, decode_mask
from wsss_jax.files import write_json
from wsss_jax.stages.infer_cam import InferCam
from wsss_jax.stages.predict import Predict

REPOSITORY = Path(__file__).resolve().parents[1]
PHOTOS = Images((40, 40), (33, 47))
SETTINGS: dict[str, Any] = dict(scales=(0.5, 1.0), flip=True, split="val", max_buckets=1)
NEEDS = {"checkpoint": "network"}

# Only the standard library and what JAX itself needs may be imported.
GUARD = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("wsss_jax", "flax", "PIL", "cv2", "ml_collections"):
            raise AssertionError(f"imports {name}")
sys.meta_path.insert(0, Guard())
"""


def run_folder(folder: Path, network: str) -> Path:
    """A finished run with one trained network and a stage that has applied it."""
    (folder / "network").mkdir()
    Trained(folder / "network", network, "tiny")
    write_json(folder / "network/metrics.json", {"classes": Images.classes})
    finish(folder / "network")
    kind = "predict" if network == "segmentation" else "infer_cam"
    section = {"type": kind, "needs": NEEDS, **SETTINGS}
    config = {"network": {"type": "train"}, "apply": section, "stages": ["network", "apply"]}
    write_json(folder / "results.json", {"config": config})
    return folder


def written(workdir: Path, out: Path, *more: str) -> None:
    """Calls the command, in a process where array shapes may be symbols."""
    command = ["-m", "wsss_jax.export", "--workdir", str(workdir), "--out", str(out), *more]
    run = subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert str(out) in run.stdout


def apart(file: Path, call: str, tmp_path: Path) -> list[dict[str, np.ndarray]]:
    """Runs a program as the file's README says, in an isolated process, for all photographs."""
    images: dict[str, Any] = {n: PHOTOS.pixels(i) for i, n in enumerate(PHOTOS.ids)}
    np.savez(tmp_path / "in.npz", **images)
    script = f"""{GUARD}
import json, numpy, jax, jax.export
file = numpy.load({str(file)!r})
about = json.loads(file["about.json"])
program = jax.export.deserialize(bytearray(file["program.jaxexport"]))
weights = {{name: file[name] for name in file.files if name.startswith("weights/")}}
run = jax.jit(program.call)
for name, image in numpy.load({str(tmp_path / "in.npz")!r}).items():
    mask, scores = run(weights, image, numpy.int32(image.shape[:2]){call})
    numpy.savez({str(tmp_path)!r} + "/" + name, mask=mask, scores=scores)
image = numpy.pad(image, ((0, 7), (0, 17), (0, 0)), constant_values=200)
mask, scores = run(weights, image, numpy.int32([image.shape[0] - 7, image.shape[1] - 17]){call})
numpy.savez({str(tmp_path)!r} + "/padded", mask=mask, scores=scores)
assert "wsss_jax" not in sys.modules and "flax" not in sys.modules
print(program.platforms)
"""
    run = subprocess.run(
        [sys.executable, "-I", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "('cpu', 'cuda', 'tpu')"
    return [dict(np.load(tmp_path / f"{name}.npz")) for name in (*PHOTOS.ids, "padded")]


def same_without_padding(made: list[dict[str, np.ndarray]]) -> None:
    *_, last, padded = made
    height, width = last["mask"].shape
    np.testing.assert_array_equal(padded["mask"][:height, :width], last["mask"])
    assert set(np.unique(padded["mask"][height:])) == {255}
    assert not padded["scores"][..., width:].any()
    np.testing.assert_allclose(padded["scores"][..., :height, :width], last["scores"], atol=1e-5)


def test_masks_are_those_of_the_run(tmp_path: Path):
    workdir, out = run_folder(tmp_path, "segmentation"), tmp_path / "out/network.zip"
    written(workdir, out)
    made = apart(out, "", tmp_path)
    stage = context(tmp_path / "stage", PHOTOS)
    run_section(Predict, stage, ConfigDict(SETTINGS), {"checkpoint": workdir / "network"})
    for name, one in zip(PHOTOS.ids, made, strict=False):
        path = tmp_path / "stage/masks" / f"{name}.png"
        expected = decode_mask(path.read_bytes(), name, 3)
        np.testing.assert_array_equal(one["mask"], expected)
        assert len(np.unique(expected)) > 1
        assert one["scores"].dtype == np.float32 and one["mask"].dtype == np.uint8
        np.testing.assert_allclose(one["scores"].sum(0), 1, rtol=1e-5)
        np.testing.assert_array_equal(one["scores"].argmax(0), one["mask"])
    same_without_padding(made)
    with np.load(out, allow_pickle=False) as file:
        about = json.loads(file["about.json"])
        assert about["classes"] == ["background", *Images.classes]
        np.testing.assert_array_equal(about["palette"], VOC_PALETTE[:4])
        assert about["scales"] == [0.5, 1.0] and about["flip"] is True
        stored = np.load(workdir / "network/weights.npz")
        assert {f"weights/{name}" for name in stored.files} == {
            name for name in file.files if name.startswith("weights/")
        }
        for name in stored.files:
            np.testing.assert_array_equal(file[f"weights/{name}"], stored[name])
        # The lines that the tests run are those that the file itself tells.
        told = re.sub(r"\s+", " ", file["README.txt"].decode())
        assert 'program = jax.export.deserialize(bytearray(file["program.jaxexport"]))' in told
        assert "mask, scores = run(weights, image, numpy.int32(image.shape[:2]))" in told


@pytest.mark.slow
def test_maps_are_those_of_the_run(tmp_path: Path):
    workdir, out = run_folder(tmp_path, "seam"), tmp_path / "maps.zip"
    written(workdir, out, "--maps")
    made = apart(out, ", numpy.array([True, False, False]), numpy.float32(0.3)", tmp_path)
    stage = context(tmp_path / "stage", PHOTOS)
    run_section(InferCam, stage, ConfigDict(SETTINGS), {"checkpoint": workdir / "network"})
    name = PHOTOS.ids[1]  # This one shows the first class.
    keys, expected = read_cams(tmp_path / "stage/cams" / f"{name}.npz")
    assert list(keys) == [0]
    one = made[1]
    np.testing.assert_allclose(one["scores"][0], expected[0], atol=1e-3)  # float16 in the file
    assert not one["scores"][1:].any()
    np.testing.assert_array_equal(one["mask"], (one["scores"][0] > 0.3).astype(np.uint8))
    assert 0 < one["mask"].mean() < 1
    same_without_padding(made)


def test_mistakes_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: str) -> str:
        assert export.main(["export.py", "--out", str(tmp_path / "x.zip"), *arguments]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.count("\n") == 1
        return told

    assert "no folder" not in call("--workdir", str(tmp_path / "absent"))
    workdir = run_folder(tmp_path, "segmentation")
    assert "of type infer_cam, found none" in call("--workdir", str(workdir), "--maps")
    for folder in (".", str(tmp_path)):  # told before anything is read
        assert f"found the folder {folder}: name a file" in call(
            "--workdir", str(tmp_path / "absent"), "--out", folder
        )
    assert "expected some of cpu, cuda, tpu" in call("--workdir", str(workdir), "--platforms", "x")
    third = call("--workdir", str(workdir), "--scales", "0.3333")
    assert "ratios of numbers" in third
    assert not (tmp_path / "x.zip").exists() and not list(tmp_path.glob("*.tmp"))
