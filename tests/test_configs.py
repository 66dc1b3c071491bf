"""Every recipe loads, names stages that fit together, and has a dry run."""

import re
import types
from pathlib import Path
from typing import Any

import pytest

from wsss_jax import main
from wsss_jax.data.augment import Augment
from wsss_jax.data.sets.shapes import Shapes
from wsss_jax.files import flatten
from wsss_jax.pipeline import dry_run, graph
from wsss_jax.pipeline.config import load_config, shipped_recipes
from wsss_jax.stages.network import NetworkStage
from wsss_jax.stages.train import Train

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_is_complete(name: str):
    c: Any = load_config(name)
    stages = {stage.name: stage for stage in graph.stages(c)}
    assert c.name == name
    assert set(stages) == set(c.stages)
    graph.check(tuple(stages.values()))
    first = next(iter(stages.values()))
    assert isinstance(first.stage, NetworkStage) and [*stages][-1] == "report"
    assert first.name.startswith("train") == isinstance(first.stage, Train)
    # Every section belongs to a stage or is general: nothing is left over from a copy.
    assert set(c) - {"init_weights", "protocol"} == {"name", "seed", "data", "stages", *stages}
    if isinstance(first.stage, Train):
        Augment(**c.train.augment)
    for stage in stages.values():
        if isinstance(stage.stage, NetworkStage):
            assert stage.stage.method_for(5).param_rules()
    for key, value in flatten(c):
        assert value is not None, f"{key}: a value without type cannot be replaced"


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_docstring_holds_the_command(name: str):
    text = (REPOSITORY / "configs" / f"{name}.py").read_text()
    command = f"python -m wsss_jax.main --config configs/{name}.py --workdir runs/{name}"
    assert command in " ".join(text.replace("\\\n", " ").split())


# They have the stages of `cam_shapes` (three), of `pss_shapes` (two), and of `seam_shapes`.
ALIKE = (
    *("ecsnet_shapes", "ssenet_shapes", "puzzlecam_shapes"),
    *("pss_one_stage_shapes", "recam_shapes", "cam_psa_shapes"),
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name
        for name in shipped_recipes()
        if name.endswith("_shapes")
    ],
)
def test_dry_run_of_the_built_in_data(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("WSSS_JAX_DATA", str(tmp_path / "data"))
    # Runs beside this one would add expected times between the two plans.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    workdir = tmp_path / "run"
    arguments = [f"--config={name}", f"--workdir={workdir}", "--config.train.batch_size=4"]
    assert main.main(["main", *arguments, "--dry_run"]) == 0
    plan = capsys.readouterr().out
    assert main.main(["main", *arguments, "--dry_run", "--details"]) == 0
    text = capsys.readouterr().out
    recipe: Any = load_config(name)
    rate = recipe.train.optimizer.lr * (4 / recipe.train.batch_size) ** 0.5  # it follows the batch
    for line in (
        f"optimizer    adamw, lr {rate:g}",
        "G per step",
        "train.batch_size = 4",
    ):
        assert line in text
    different, rest = text.split("\n\nstages\n")
    for line in ("train.batch_size = 4\n", "train.augment.crop = 96 (default 448)\n"):
        assert f"  {line}" in different
    told = different.split("\n\ndifferent from the defaults\n")[1].splitlines()
    assert len(told) > 10 and all(re.match(r"  \w+\.[\w.]+ = ", line) for line in told)
    assert ".compare = {}\n" in rest and ".compare = {}" not in different
    assert "train.augment.flip" not in different and "train.augment.flip = 0.5" in rest
    # The plan without details is a part of it: a line for each stage and split.
    lines = plan.splitlines()
    assert [line for line in lines if line not in text.splitlines()] == [
        "--details shows all settings, and what trainings cost in memory and FLOPs"
    ]
    assert lines[2] == "stages" and len(lines) <= len(recipe.stages) + 9
    for line, stage in zip(lines[3:], recipe.stages, strict=False):
        assert line.split()[:3] == [stage, "run", recipe[stage].type]
    # A dry run changes nothing.
    assert not workdir.exists() and not (tmp_path / "data").exists()


def test_dry_run_without_the_data(tmp_path: Path):
    c: Any = load_config("cam_shapes")
    c.data = load_config("cam_voc").data
    text = dry_run.describe(c, tmp_path / "run", (), False, details=True).text
    assert "18 epochs of floor(images / 16), images not counted" in text
    assert "20 classes (assumed)" in text


def test_dry_run_counts_steps_without_preparing_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    builder = types.SimpleNamespace(
        ids=["x"] * 103, classes=tuple("abcdef"), data_dir=str(tmp_path / "not_there")
    )
    monkeypatch.setattr(Shapes, "builder", lambda data, split: builder)
    c: Any = load_config("cam_shapes")
    c.train.batch_size = 4
    text = dry_run.describe(c, tmp_path / "run", (), False, details=True).text
    assert "new; steps 450 = 18 epochs of floor(103 images / 4)" in text
    assert "train: 103 images, to be prepared on the first run" in text
    assert "backbone tiny, 6 classes\n" in text


@pytest.mark.slow
def test_dry_run_of_the_published_recipe(tmp_path: Path):
    text = dry_run.describe(load_config("seam_voc"), tmp_path / "run", (), False, details=True).text
    assert "104,489,536 trained, 868,672 frozen" in text  # 105.4 M with SEAM's heads
    assert "lr 0.1 (x10): 287,296 parameters" in text
