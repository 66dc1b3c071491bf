"""Every published recipe takes a real step: its backbone, its crop, photographs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import traverse_util

from tests.toys.photographs import few_photographs
from wsss_jax import main
from wsss_jax.files import read_json
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import init_variables
from wsss_jax.pipeline.config import load_config
from wsss_jax.training.metrics import read_metrics
from wsss_jax.training.optimizer import assign_rules

RECIPES = (
    *("cam_voc", "ssenet_voc", "seam_voc", "pss_voc", "ecsnet_voc", "cam_irn_voc", "recam_voc"),
    "puzzlecam_voc",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_at_the_published_crop(
    name: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe: Any = load_config(name)
    stages = [stage for stage in ("train_rcm", "train_cam", "train") if stage in recipe.stages]
    command = ["main", f"--config={name}", f"--workdir={tmp_path}", f"--only={','.join(stages)}"]
    command += few_photographs(shared, tmp_path / "few", 2)
    for stage in stages:
        # Two images, since regional contrast takes an image's prototypes from the others.
        command += [f"--config.{stage}.{value}" for value in ("batch_size=2", "steps=1", "keep=1")]
        if len(stages) > 1:
            # From random weights a second step at the published rate overflows.
            command.append(f"--config.{stage}.optimizer.lr=1e-6")
    assert main.main(command) == 0, capsys.readouterr().err

    method = Method.from_config(recipe.train.method.to_dict(), num_classes=20)
    params, _ = init_variables(method, recipe.seed)
    rules = assign_rules(params, method.param_rules())
    before: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    for stage in stages:
        (row,) = read_metrics(tmp_path / stage)
        assert all(np.isfinite(value) for value in row.values()), row
        with np.load(tmp_path / stage / "weights.npz") as file:
            after = {path.removeprefix("params/"): file[path] for path in file}
        for path, rule in rules.items():
            if path.split("/")[0] in method.added_layers and stage != stages[-1]:
                assert path not in after
                continue
            assert np.isfinite(after[path]).all(), path
            assert np.array_equal(after[path], before[path]) == rule.frozen, path
        before |= after


@pytest.mark.slow
def test_lpcam_at_the_published_size(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """ResNet-50 after a step, at a single scale of the maps, which are not worth anything."""
    made = ("train", "plain_cam", "class_features", "prototypes", "cam", "eval_cam_train")
    command = ["main", "--config=lpcam_voc", f"--workdir={tmp_path}", f"--only={','.join(made)}"]
    command += few_photographs(shared, tmp_path / "few", 2)
    values = ("batch_size=2", "steps=1", "keep=1", "augment.crop=64", "optimizer.lr=1e-6")
    command += [f"--config.train.{value}" for value in values]
    command += [f"--config.{stage}.scales=1.0" for stage in ("plain_cam", "cam")]
    command += ["--config.eval_cam_train.needs={'pred': 'cam'}"]
    command += ["--config.eval_cam_train.compare={'published': 0.3}"]
    assert main.main(command) == 0, capsys.readouterr().err

    recipe: Any = load_config("lpcam_voc")
    with np.load(tmp_path / "prototypes" / "weights.npz") as file:
        clusters = file["prototypes/foreground"]
        assert clusters.shape == (20, recipe.prototypes.method.clusters, 2048)
        assert np.isfinite(clusters).all() and clusters.any((1, 2)).sum() >= 2
    scores = read_json(tmp_path / "eval_cam_train" / "metrics.json")
    assert scores["compared"]["published"]["threshold"] == 0.3
