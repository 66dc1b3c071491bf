"""The plan of a run ends with the reasons for which it would be refused."""

from pathlib import Path

from wsss_jax.files import write_json
from wsss_jax.pipeline import dry_run
from wsss_jax.pipeline.config import read_recipe


def last_lines(workdir: Path, *only: str) -> list[str]:
    overrides = ("--config.data.root=/nowhere", "--config.train.batch_size=4")
    config = read_recipe("seam_own_light", overrides)
    text = dry_run.describe(config, workdir, only, force=False)
    return text.partition("this run would be refused\n")[2].splitlines()


def test_refusals_stand_last(tmp_path: Path):
    write_json(tmp_path / "run/threshold/other.json", {})
    data, stage = last_lines(tmp_path / "run")
    assert "split train: data not found (expected a data set at /nowhere, found no such" in data
    assert "stage threshold: " in stage and "was not made by this program" in stage


def test_a_plan_that_works_has_none(tmp_path: Path):
    config = read_recipe("cam_shapes", (f"--config.data.data_dir={tmp_path}",))
    text = dry_run.describe(config, tmp_path / "run", ("train",), force=False)
    assert "would be refused" not in text
