"""A plan ends with the reasons for which the run would be refused, and then fails like the run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.toys.adding_stages import adding_config, make_workdir
from wsss_jax import main
from wsss_jax.files import write_json
from wsss_jax.pipeline import dry_run, durations, run
from wsss_jax.pipeline.config import read_recipe


def last_lines(workdir: Path, *only: str) -> list[str]:
    overrides = ["--config.data.root=/nowhere", "--config.train.batch_size=4"]
    for stage in ("train", "train_affinity", "train_segmentation"):  # are described in no time
        overrides += [f"--config.{stage}.method.backbone.name=tiny"]
        overrides += [f"--config.{stage}.init_weights="]
    config = read_recipe("seam_own_light", tuple(overrides))
    plan = dry_run.describe(config, workdir, only, force=False)
    lines = plan.text.partition("this run would be refused\n")[2].splitlines()
    assert [line.strip() for line in lines] == list(plan.refused)
    return lines


def test_refusals_stand_last(tmp_path: Path):
    write_json(tmp_path / "run/threshold/other.json", {})
    stage, data = last_lines(tmp_path / "run")
    assert "expected a data set at /nowhere, found no such folder: check data.root" in data
    assert "stage threshold: " in stage and "was not made by this program" in stage


def test_a_plan_that_works_has_none(tmp_path: Path):
    config = read_recipe("cam_shapes", (f"--config.data.data_dir={tmp_path}",))
    plan = dry_run.describe(config, tmp_path / "run", ("train",), force=False)
    assert "would be refused" not in plan.text and not plan.refused


def test_each_stage_has_a_line_with_what_it_reads_and_how_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    workdir = make_workdir(tmp_path, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = adding_config()

    def stages(**changed: Any) -> list[str]:
        text = dry_run.describe(adding_config(**changed), workdir, (), force=False).text
        return text.split("\nstages\n")[1].partition("\n\ndata")[0].splitlines()

    nodes = run.checked(config, ())
    assert stages() == [
        "  a  run     fake_stages.add: new",
        "  b  run     fake_stages.add <- a: new",
        "  c  run     fake_stages.add <- b: new",
        "  d  run     fake_stages.add <- a: new",
    ]
    for number, node in enumerate(nodes):
        durations.remember(node, 1, 27.0 + number)
    told = stages()
    assert told[1] == "  b  run     fake_stages.add <- a: new; about 30 s"
    assert told[-1] == "  in all about 2 min, as on this machine before"
    run.run(config, workdir, only=("a", "b"))
    durations.remember(nodes[3], 1, 27.0)
    told = stages(c={"add": 77.0})
    assert told[0].startswith("  a  skip    fake_stages.add: finished")
    assert told[2] == "  c  run     fake_stages.add <- b: new", "not known with these settings"
    assert told[3].endswith("; about 30 s") and len(told) == 4


def test_details_belong_to_a_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["main", "--config=cam_shapes", f"--workdir={tmp_path}/run", "--details"]
    assert main.main(command) == 2
    error = "error: --details only describes: add --dry_run, or remove --details\n"
    assert capsys.readouterr().err == error


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """The line with which a command is refused, which is that of its dry run."""
    last = []
    for dry in (["--dry_run"], []):
        assert main.main(["main", *command, *dry]) == 2
        said = capsys.readouterr()
        last.append(said.err.splitlines()[-1])
        assert ("this run would be refused" in said.out) == bool(dry)
    assert len(set(last)) == 1, last
    return last[0]


def test_what_is_not_there_is_refused_like_in_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    workdir = make_workdir(tmp_path, monkeypatch)
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.format(root=str(tmp_path / "nowhere")))
    command = [f"--config={recipe}", f"--workdir={workdir}"]
    assert refused(capsys, *command) == (
        f"error: expected a data set at {tmp_path / 'nowhere'}, found no such folder: check"
        " data.root"
    )
    told = refused(capsys, *command, "--config.a.init_weights=gone.npz")
    assert told == (
        "error: stage a: expected a file at gone.npz (init_weights), found none; set"
        " --config.a.init_weights"
    )
    write_json(workdir / "a/other.json", {})
    assert "stage a: " in refused(capsys, *command)


RECIPE = """
from tests.toys.adding_stages import adding_config
from wsss_jax.data.sets.base import DataSettings

def get_config():
    c = adding_config()
    c.data = DataSettings.defaults("voc2012", root={root!r})
    c.a.split = "train"
    return c
"""


def test_weights_of_another_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WSSS_JAX_DATA", str(tmp_path / "data"))
    arrays: dict[str, Any] = {"params/backbone/conv/kernel": np.zeros((3, 3, 3, 8))}
    np.savez(tmp_path / "other.npz", **arrays)
    command = ["--config=cam_shapes", f"--workdir={tmp_path / 'run'}", "--only=train"]
    command += ["--config.data.train_images=16", "--config.data.val_images=2"]
    command.append(f"--config.train.init_weights={tmp_path / 'other.npz'}")
    told = refused(capsys, *command)
    assert told.startswith("error: stage train: expected the ") and "other.npz" in told
    assert "use the file of this network" in told and not (tmp_path / "run/train").exists()
