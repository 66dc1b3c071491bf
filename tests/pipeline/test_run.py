"""Stages of fake modules: order, skip, refusal, force, lock."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from tests.toys.adding_stages import adding_config, make_workdir, stages_run
from tests.toys.devkits import IDS, Devkit
from wsss_jax.errors import UserError
from wsss_jax.pipeline import graph, record, run


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_workdir(tmp_path, monkeypatch)


def test_damaged_images_are_named_at_the_end_and_in_the_results(
    workdir: Path, capsys: pytest.CaptureFixture
):
    stages = workdir.parent / "fake_stages"
    text = (stages / "add.py").read_text()
    text = text.replace("add: float = 1.0", 'add: float = 1.0\n    split: str = "train"')
    (stages / "reading.py").write_text(text)
    devkit = Devkit(workdir.parent)
    os.truncate(devkit.image(IDS[1]), 300)
    config = adding_config(b={"type": "fake_stages.reading"}, c={"type": "fake_stages.reading"})
    config.data = ConfigDict(
        {
            "builder": "voc2012",
            "root": str(devkit.voc.parent),
            "data_dir": str(devkit.folder / "prepared"),
            "damaged_share": 0.5,
        }
    )
    run.run(config, workdir)
    told = "1 damaged images (named in "
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WARNING")]
    assert len(said) == 1 and said[0].startswith(f"WARNING of b: {told}")
    assert said[0].endswith("skipped.json) were left out of the 3 images of train")
    results = json.loads((workdir / "results.json").read_text())["stages"]
    assert results["b"]["metrics"]["warnings"][0].startswith(told)
    assert "warnings" not in results["c"]["metrics"], "it is told once"


def _train_config() -> ConfigDict:
    c = adding_config()
    c.train = c.a
    c.stages = ("train",)
    return c


def test_runs_in_order_and_leaves_records(workdir: Path, capsys: pytest.CaptureFixture):
    metrics = run.run(adding_config(), workdir)
    assert stages_run(workdir) == ["a", "b", "c", "d"]
    assert {n: m["value"] for n, m in metrics.items()} == {"a": 1, "b": 2, "c": 3, "d": 2}
    assert json.loads((workdir / "c" / "config.json").read_text())["needs"] == {"x": "b"}
    assert json.loads((workdir / "c" / "metrics.json").read_text()) == metrics["c"]
    done = json.loads((workdir / "c" / "_DONE.json").read_text())
    assert done["versions"]["jax"] and done["seconds"] >= 0 and len(done["digest"]) == 16
    results = json.loads((workdir / "results.json").read_text())
    assert results["stages"]["b"]["metrics"]["value"] == 2
    assert results["config"]["a"]["add"] == 1
    assert "25.0% mIoU" in capsys.readouterr().out


def test_second_run_skips_everything(workdir: Path):
    first = run.run(adding_config(), workdir)
    stages_run(workdir)
    assert run.run(adding_config(), workdir) == first
    assert stages_run(workdir) == []


def test_a_copy_under_another_name_is_a_finished_stage_too(workdir: Path):
    run.run(adding_config(), workdir)
    stages_run(workdir)
    other = workdir.parent / "other"
    shutil.copytree(workdir / "a", other / "first")
    config: Any = adding_config(b={"needs": {"x": "first"}})
    config.first = config.a
    config.stages = ("first", "b")
    run.run(config, other)
    assert stages_run(workdir) == ["b"]
    # With other settings, it is not.
    config.first.add = 2.0
    with pytest.raises(UserError, match=r"first\.add was 1\.0, is now 2\.0"):
        run.run(config, other)


def test_what_does_not_change_results_may_change(workdir: Path):
    run.run(adding_config(), workdir)
    stages_run(workdir)
    config = adding_config(a={"log_every": 1})
    config.data = ConfigDict({"builder": "tests.toys.no_data", "root": "/moved"})
    run.run(config, workdir)
    assert stages_run(workdir) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.b.update(add=5.0), "b.add was 1.0, is now 5.0"),
        (lambda c: c.update(seed=7), "seed was 0, is now 7"),
        (
            lambda c: setattr(c, "data", ConfigDict({"builder": "shapes"})),
            "data.builder was 'tests.toys.no_data', is now 'shapes'",
        ),
        (lambda c: c.b.update(more={"new": 1}), "b.more.new was not set, is now 1.0"),
        (lambda c: c.b.update(sizes=(1, 2)), "b.sizes was [], is now [1, 2]"),
    ],
)
def test_another_config_is_refused_and_nothing_runs(workdir: Path, change: Any, named: str):
    run.run(adding_config(), workdir)
    stages_run(workdir)
    config = adding_config()
    change(config)
    with pytest.raises(UserError, match="holds another run") as error:
        run.run(config, workdir)
    assert named in str(error.value) and "\n" not in str(error.value)
    assert stages_run(workdir) == []


def test_a_default_is_the_same_left_out_and_written_down(workdir: Path):
    config: Any = adding_config()
    for name in config.stages:
        del config[name].add, config[name].log_every
    run.run(config, workdir)
    stages_run(workdir)
    before = json.loads((workdir / "c" / "_DONE.json").read_text())["digest"]
    written = {"add": 1, "sizes": (), "more": {}, "stop": "", "init_weights": "", "log_every": 5}
    config = adding_config(a=written, b=written, c=written, d=written)
    (decided,) = [
        decision
        for decision in record.decide(graph.stages(config), config.to_dict(), {}, workdir)
        if decision.node.name == "c"
    ]
    assert decided.action == "skip" and decided.digest == before
    run.run(config, workdir)
    assert stages_run(workdir) == []


def test_a_folder_of_an_older_version_is_refused_in_one_line(workdir: Path):
    run.run(adding_config(), workdir)
    stages_run(workdir)
    for name in ("a", "b"):
        start = json.loads((workdir / name / "_START.json").read_text())
        assert start["parts"].pop("format") == record.FORMAT  # as version 0.1 wrote it
        (workdir / name / "_START.json").write_text(json.dumps(start))
    with pytest.raises(UserError, match=r"stage a: .*/a holds another run") as error:
        run.run(adding_config(), workdir)
    assert "made by an older version, whose settings had other names" in str(error.value)
    assert "another --workdir, or --force" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"needs a, which holds another run: .* older version"):
        run.run(adding_config(), workdir, only=("b",))
    assert stages_run(workdir) == []
    run.run(adding_config(), workdir, force=True)
    assert stages_run(workdir) == ["a", "b", "c", "d"]


def test_what_does_not_fit_the_data_is_refused_before_the_first_stage(workdir: Path):
    path = workdir.parent / "fake_stages" / "add.py"
    check = """
    def check_data(self, ctx):
        if self.add == 13:
            raise UserError(f"expected no 13 in {ctx.stage_dir.name}")
"""
    text = path.read_text().replace("import Interrupted", "import Interrupted, UserError")
    path.write_text(text + check)
    with pytest.raises(UserError, match=r"^stage c: expected no 13 in c$"):
        run.run(adding_config(c={"add": 13}), workdir)
    assert stages_run(workdir) == []
    # What is finished is not asked.
    run.run(adding_config(), workdir)
    assert stages_run(workdir) == ["a", "b", "c", "d"]


def test_unfinished_stage_of_another_config_is_refused(workdir: Path):
    with pytest.raises(RuntimeError):
        run.run(adding_config(b={"stop": "crash"}), workdir)
    with pytest.raises(UserError, match=r"b\.add was 1\.0, is now 2\.0"):
        run.run(adding_config(b={"stop": "crash", "add": 2.0}), workdir)


def test_force_redoes_what_differs_and_what_was_made_from_it(workdir: Path):
    run.run(adding_config(), workdir)
    stages_run(workdir)
    metrics = run.run(adding_config(b={"add": 5.0}), workdir, force=True)
    assert stages_run(workdir) == ["b", "c"]
    assert metrics["c"]["value"] == 7 and metrics["d"]["value"] == 2


def test_force_alone_keeps_what_is_the_same(workdir: Path):
    run.run(adding_config(), workdir)
    stages_run(workdir)
    run.run(adding_config(), workdir, force=True)
    assert stages_run(workdir) == []


def test_needs_are_checked_before_the_data_are_prepared(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run, "_digests", lambda *_: pytest.fail("prepared"))
    with pytest.raises(UserError, match="it needs a, which is not finished: add a to --only"):
        run.run(adding_config(), workdir, only=("b",))
    with pytest.raises(UserError, match="it needs b, which is not finished: add a,b to --only"):
        run.run(adding_config(), workdir, only=("c",))


def test_weights_are_looked_for_before_the_data_are_prepared(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run, "_digests", lambda *_: pytest.fail("prepared"))
    with pytest.raises(UserError, match=r"stage a: expected a file at gone\.npz .* found none"):
        run.run(adding_config(a={"init_weights": "gone.npz"}), workdir)
    assert not workdir.exists()


def test_only_needs_finished_inputs(workdir: Path):
    with pytest.raises(UserError, match=r"stage b: it needs a, which is not finished"):
        run.run(adding_config(), workdir, only=("b",))
    with pytest.raises(UserError, match=r"not a stage of this config .*did you mean"):
        run.run(_train_config(), workdir, only=("trian",))


def test_order_follows_needs_then_the_listing(workdir: Path):
    config = adding_config()
    config.stages = ("d", "c", "b", "a")
    assert [s.name for s in graph.stages(config)] == ["a", "d", "b", "c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.a.update(needs={"y": "c"}), "in a circle: a -> c -> b -> a"),
        (lambda c: c.b.update(needs={"x": "aa"}), "b needs aa, which is not in .*did you mean a"),
        (lambda c: c.update(stages=("a", "bb")), "bb has no section in the config; did you mean b"),
        (
            lambda c: c.b.update(type="fake_stages.ad"),
            "expected b.type to be one of .* dotted name of a module, found 'fake_stages.ad'",
        ),
        (lambda c: c.b.update(type="evaluat"), "did you mean evaluate"),
        (lambda c: c.update(stages=("a", "a")), "a is listed twice"),
        (lambda c: c.update(stages=()), "to name its stages"),
        (lambda c: c.update(stages=("../a",)), "letters, digits and _"),
    ],
)
def test_wrong_graphs_are_refused_in_one_line(workdir: Path, change: Any, message: str):
    config = adding_config()
    change(config)
    with pytest.raises(UserError, match=message) as error:
        graph.stages(config)
    assert "\n" not in str(error.value)


def test_weight_files_count_by_content(workdir: Path, tmp_path: Path):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    run.run(adding_config(a={"init_weights": str(first)}), workdir)
    stages_run(workdir)
    run.run(adding_config(a={"init_weights": str(second)}), workdir)
    first.unlink()
    run.run(adding_config(a={"init_weights": str(first)}), workdir)
    assert stages_run(workdir) == []
    second.write_bytes(b"others")
    with pytest.raises(UserError, match=r"the file a\.init_weights changed"):
        run.run(adding_config(a={"init_weights": str(second)}), workdir)


def test_durations_read_well():
    assert [run.clock(s) for s in (4.21, 65.0, 3723.0)] == ["4.2 s", "1:05 min", "1:02:03 h"]
