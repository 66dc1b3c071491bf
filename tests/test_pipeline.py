"""Stages of fake modules: order, skip, resume, refusal, force, lock."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from wsss_jax import graph, pipeline, runtime, stage_folder
from wsss_jax.errors import Interrupted, UserError

# Copies its inputs' numbers and adds its own; counts its runs outside of the stage folder.
_ADD = """
from pathlib import Path
from wsss_jax.errors import Interrupted
def run(ctx, config, inputs):
    with open(ctx.workdir.parent / "log", "a") as log:
        log.write(ctx.stage + "\\n")
    parts = [float((folder / "value").read_text()) for folder in inputs.values()]
    half = ctx.stage_dir / "half"
    if not half.exists():
        half.write_text("1")
        if config.get("stop", "") == "crash":
            raise RuntimeError("power cut")
        if config.get("stop", "") == "asked":
            raise Interrupted("stopped after step 3")
    (ctx.stage_dir / "value").write_text(str(sum(parts) + config.add))
    return {"miou": 0.25, "value": sum(parts) + config.add}
"""


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "fake_stages").mkdir()
    (tmp_path / "fake_stages" / "__init__.py").write_text("")
    (tmp_path / "fake_stages" / "add.py").write_text(_ADD)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [m for m in sys.modules if m.startswith("fake_stages")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "run"


def _config(**sections: dict[str, Any]) -> ConfigDict:
    """Stages a -> b -> c and a -> d; `sections` change theirs."""
    c = ConfigDict({"seed": 0, "data": {"builder": "none", "root": "/somewhere"}})
    needs = {"a": {}, "b": {"x": "a"}, "c": {"x": "b"}, "d": {"x": "a"}}
    for name, need in needs.items():
        section = {"type": "fake_stages.add", "needs": need, "add": 1.0, "log_every": 10}
        c[name] = ConfigDict({**section, **sections.get(name, {})})
    c.stages = ("a", "b", "c", "d")
    return c


def _train_config() -> ConfigDict:
    c = _config()
    c.train = c.a
    c.stages = ("train",)
    return c


def _ran(workdir: Path) -> list[str]:
    """The stages that ran since the last call."""
    log = workdir.parent / "log"
    lines = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_runs_in_order_and_leaves_records(workdir: Path, capsys: pytest.CaptureFixture):
    metrics = pipeline.run(_config(), workdir)
    assert _ran(workdir) == ["a", "b", "c", "d"]
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
    first = pipeline.run(_config(), workdir)
    _ran(workdir)
    assert pipeline.run(_config(), workdir) == first
    assert _ran(workdir) == []


def test_what_does_not_change_results_may_change(workdir: Path):
    pipeline.run(_config(), workdir)
    _ran(workdir)
    config = _config(a={"log_every": 1})
    config.data = ConfigDict({"builder": "none", "root": "/moved"})
    pipeline.run(config, workdir)
    assert _ran(workdir) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.b.update(add=5.0), "b.add was 1.0, is now 5.0"),
        (lambda c: c.update(seed=7), "seed was 0, is now 7"),
        (lambda c: c.data.update(builder="other"), "data.builder was 'none', is now 'other'"),
        (lambda c: c.b.update(new=(1, 2)), "b.new was not set, is now [1, 2]"),
    ],
)
def test_another_config_is_refused_and_nothing_runs(workdir: Path, change: Any, named: str):
    pipeline.run(_config(), workdir)
    _ran(workdir)
    config = _config()
    change(config)
    with pytest.raises(UserError, match="holds another run") as error:
        pipeline.run(config, workdir)
    assert named in str(error.value) and "\n" not in str(error.value)
    assert _ran(workdir) == []


def test_unfinished_stage_of_another_config_is_refused(workdir: Path):
    with pytest.raises(RuntimeError):
        pipeline.run(_config(b={"stop": "crash"}), workdir)
    with pytest.raises(UserError, match=r"b\.add was 1\.0, is now 2\.0"):
        pipeline.run(_config(b={"stop": "crash", "add": 2.0}), workdir)


def test_force_redoes_what_differs_and_what_was_made_from_it(workdir: Path):
    pipeline.run(_config(), workdir)
    _ran(workdir)
    metrics = pipeline.run(_config(b={"add": 5.0}), workdir, force=True)
    assert _ran(workdir) == ["b", "c"]
    assert metrics["c"]["value"] == 7 and metrics["d"]["value"] == 2


def test_force_alone_keeps_what_is_the_same(workdir: Path):
    pipeline.run(_config(), workdir)
    _ran(workdir)
    pipeline.run(_config(), workdir, force=True)
    assert _ran(workdir) == []


def test_only_with_force_redoes_the_named_and_keeps_what_was_made_from_it(workdir: Path):
    pipeline.run(_config(), workdir)
    _ran(workdir)
    pipeline.run(_config(), workdir, only=("b",), force=True)
    assert _ran(workdir) == ["b"]
    pipeline.run(_config(), workdir)
    assert _ran(workdir) == []


def test_only_with_force_removes_what_was_made_from_other_results(
    workdir: Path, capsys: pytest.CaptureFixture
):
    pipeline.run(_config(), workdir)
    _ran(workdir)
    pipeline.run(_config(b={"add": 5.0}), workdir, only=("b",), force=True)
    assert _ran(workdir) == ["b"]
    assert not (workdir / "c").exists() and (workdir / "d" / "_DONE.json").exists()
    assert "c (" in (out := capsys.readouterr().out) and "deleted, it was made from" in out


def test_a_stage_that_ended_before_it_made_anything_may_be_corrected(workdir: Path):
    pipeline.run(_config(), workdir, only=("a",))
    _ran(workdir)
    (workdir / "a" / "_DONE.json").unlink()
    for made in (workdir / "a").iterdir():
        if made.name not in ("_START.json", "config.json"):
            made.unlink()
    pipeline.run(_config(a={"add": 3.0}), workdir, only=("a",))
    assert _ran(workdir) == ["a"]


def test_needs_are_checked_before_the_data_are_prepared(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "_digests", lambda *_: pytest.fail("prepared"))
    with pytest.raises(UserError, match="it needs a, which is not finished"):
        pipeline.run(_config(), workdir, only=("b",))


def test_weights_are_looked_for_before_the_data_are_prepared(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "_digests", lambda *_: pytest.fail("prepared"))
    with pytest.raises(UserError, match=r"stage a: expected weights .* at gone\.npz, found no"):
        pipeline.run(_config(a={"init_weights": "gone.npz"}), workdir)
    assert not workdir.exists()


def test_only_runs_a_part(workdir: Path):
    pipeline.run(_config(), workdir, only=("a", "d"))
    assert _ran(workdir) == ["a", "d"]
    pipeline.run(_config(), workdir)
    assert _ran(workdir) == ["b", "c"]


def test_only_needs_finished_inputs(workdir: Path):
    with pytest.raises(UserError, match=r"stage b: it needs a, which is not finished"):
        pipeline.run(_config(), workdir, only=("b",))
    with pytest.raises(UserError, match=r"no stage of this config .*did you mean"):
        pipeline.run(_train_config(), workdir, only=("trian",))


def test_only_refuses_inputs_of_another_config(workdir: Path):
    pipeline.run(_config(), workdir, only=("a",))
    with pytest.raises(UserError, match=r"it needs a, .*a\.add was 1\.0, is now 3\.0"):
        pipeline.run(_config(a={"add": 3.0}), workdir, only=("b",))


def test_resumes_after_a_crash(workdir: Path):
    config = _config(b={"stop": "crash"})
    with pytest.raises(RuntimeError, match="power cut"):
        pipeline.run(config, workdir)
    assert _ran(workdir) == ["a", "b"]
    pipeline.run(config, workdir)
    assert _ran(workdir) == ["b", "c", "d"]  # and b found its half-done work


def test_a_stop_on_request_keeps_the_time_spent(workdir: Path):
    config = _config(b={"stop": "asked"})
    with pytest.raises(Interrupted):
        pipeline.run(config, workdir)
    spent = json.loads((workdir / "b" / "_START.json").read_text())["seconds"]
    assert spent > 0
    pipeline.run(config, workdir)
    assert json.loads((workdir / "b" / "_DONE.json").read_text())["seconds"] >= round(spent, 3)


def test_an_input_that_is_gone_makes_its_results_stale(workdir: Path):
    pipeline.run(_config(), workdir)
    stage_folder.remove(workdir, "a")
    with pytest.raises(UserError, match=r"stage b: .*a is run again"):
        pipeline.run(_config(), workdir)


def test_folders_of_others_are_never_touched(workdir: Path, tmp_path: Path):
    (workdir / "b").mkdir(parents=True)
    (workdir / "b" / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(UserError, match="was not made by this program"):
            pipeline.run(_config(), workdir, force=force)
    assert (workdir / "b" / "thesis.tex").exists() and not (workdir / "a").exists()


def test_force_does_not_follow_links_out_of_the_workdir(workdir: Path, tmp_path: Path):
    pipeline.run(_config(), workdir)
    elsewhere = tmp_path / "elsewhere"
    (workdir / "b").rename(elsewhere)
    (workdir / "b").symlink_to(elsewhere)
    with pytest.raises(UserError):
        pipeline.run(_config(b={"add": 2.0}), workdir, force=True)
    with pytest.raises(UserError, match="will not delete"):
        stage_folder.remove(workdir, "b")
    assert (elsewhere / "value").exists()


def test_a_deletion_cut_short_leaves_no_finished_stage(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
):
    pipeline.run(_config(), workdir)

    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.name != "_DONE.json":
            raise KeyboardInterrupt
        unlink(path)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        stage_folder.remove(workdir, "c")
    assert (workdir / "c" / "_START.json").exists()
    assert not (workdir / "c" / "_DONE.json").exists()


def test_order_follows_needs_then_the_listing(workdir: Path):
    config = _config()
    config.stages = ("d", "c", "b", "a")
    assert [s.name for s in graph.stages(config)] == ["a", "d", "b", "c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.a.update(needs={"y": "c"}), "in a circle: a -> c -> b -> a"),
        (lambda c: c.b.update(needs={"x": "aa"}), "b needs aa, which is not in .*did you mean a"),
        (lambda c: c.update(stages=("a", "bb")), "bb has no section in the config; did you mean b"),
        (lambda c: c.b.update(type="fake_stages.ad"), "b.type is 'fake_stages.ad', expected one"),
        (lambda c: c.b.update(type="evaluat"), "did you mean evaluate"),
        (lambda c: c.update(stages=("a", "a")), "a is listed twice"),
        (lambda c: c.update(stages=()), "to name its stages"),
        (lambda c: c.update(stages=("../a",)), "letters, digits and _"),
    ],
)
def test_wrong_graphs_are_refused_in_one_line(workdir: Path, change: Any, message: str):
    config = _config()
    change(config)
    with pytest.raises(UserError, match=message) as error:
        graph.stages(config)
    assert "\n" not in str(error.value)


def test_weight_files_count_by_content(workdir: Path, tmp_path: Path):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    pipeline.run(_config(a={"init_weights": str(first)}), workdir)
    _ran(workdir)
    pipeline.run(_config(a={"init_weights": str(second)}), workdir)
    first.unlink()
    pipeline.run(_config(a={"init_weights": str(first)}), workdir)
    assert _ran(workdir) == []
    second.write_bytes(b"others")
    with pytest.raises(UserError, match=r"the file a\.init_weights changed"):
        pipeline.run(_config(a={"init_weights": str(second)}), workdir)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path):
    held = "import sys; from wsss_jax import runtime; from pathlib import Path\n"
    held += "with runtime.lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path / "w")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"another run \(process {other.pid} on .*is working"),
            runtime.lock(tmp_path / "w"),
        ):
            pass
        other.kill()
    with runtime.lock(tmp_path / "w"):  # a killed run leaves no lock behind
        pass


def test_a_workdir_that_cannot_be_made_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use --workdir"), runtime.lock(tmp_path / "file"):
        pass


def test_durations_read_well():
    assert [pipeline.clock(s) for s in (4.21, 65.0, 3723.0)] == ["4.2 s", "1:05 min", "1:02:03 h"]
