"""A pipeline that goes on: parts, crashes, stops, folders that are gone or of others."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.toys.adding_stages import adding_config, make_workdir, stages_run
from tests.toys.records import finish
from wsss_jax.errors import Interrupted, UserError
from wsss_jax.files import write_json
from wsss_jax.pipeline import graph, process, record, run


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_workdir(tmp_path, monkeypatch)


def test_only_with_force_redoes_the_named_and_keeps_what_was_made_from_it(workdir: Path):
    run.run(adding_config(), workdir)
    stages_run(workdir)
    run.run(adding_config(), workdir, only=("b",), force=True)
    assert stages_run(workdir) == ["b"]
    run.run(adding_config(), workdir)
    assert stages_run(workdir) == []


def test_only_with_force_removes_what_was_made_from_other_results(
    workdir: Path, capsys: pytest.CaptureFixture
):
    run.run(adding_config(), workdir)
    stages_run(workdir)
    run.run(adding_config(b={"add": 5.0}), workdir, only=("b",), force=True)
    assert stages_run(workdir) == ["b"]
    assert not (workdir / "c").exists() and (workdir / "d" / "_DONE.json").exists()
    assert "c (" in (out := capsys.readouterr().out) and "deleted, because it was made from" in out


def test_a_stage_that_ended_before_it_made_anything_may_be_corrected(workdir: Path):
    run.run(adding_config(), workdir, only=("a",))
    stages_run(workdir)
    (workdir / "a" / "_DONE.json").unlink()
    for made in (workdir / "a").iterdir():
        if made.name not in ("_START.json", "config.json"):
            made.unlink()
    run.run(adding_config(a={"add": 3.0}), workdir, only=("a",))
    assert stages_run(workdir) == ["a"]


def test_what_only_draws_is_drawn_from_what_there_is(workdir: Path):
    """As a report does that is asked for with some of the stages that it shows."""
    stages = workdir.parent / "fake_stages"
    lines = (
        (stages / "add.py").read_text().replace("outputs =", "redone_freely = True\n    outputs =")
    )
    of_files = "for folder in inputs.values() if (folder / 'value').exists()]"
    (stages / "draw.py").write_text(lines.replace("for folder in inputs.values()]", of_files))
    draws: dict[str, dict[str, Any]] = {
        "d": {"type": "fake_stages.draw", "needs": {"x": "a", "y": "c"}}
    }
    with pytest.raises(UserError, match="stage c: it needs b, which is not finished"):
        run.run(adding_config(**draws), workdir, only=("a", "c", "d"))
    run.run(adding_config(**draws), workdir, only=("a", "d"))
    assert stages_run(workdir) == ["a", "d"]
    run.run(adding_config(**draws), workdir)
    assert stages_run(workdir) == ["b", "c", "d"], "it is drawn again with the others"


def test_what_only_draws_is_drawn_anew_for_another_recipe(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
):
    stages = workdir.parent / "fake_stages"
    lines = (stages / "add.py").read_text()
    (stages / "draw.py").write_text(
        lines.replace("outputs =", "redone_freely = True\n    outputs =")
    )
    draws: dict[str, dict[str, Any]] = {"d": {"type": "fake_stages.draw"}}
    run.run(adding_config(**draws), workdir)
    stages_run(workdir)
    draws["d"]["needs"] = {"x": "b", "y": "c"}
    run.run(adding_config(**draws), workdir)
    assert stages_run(workdir) == ["d"]
    with pytest.raises(UserError, match="stage a"):  # what it draws is still protected
        run.run(adding_config(**draws, a={"add": 2.0}), workdir)


def test_only_runs_a_part(workdir: Path):
    run.run(adding_config(), workdir, only=("a", "d"))
    assert stages_run(workdir) == ["a", "d"]
    run.run(adding_config(), workdir)
    assert stages_run(workdir) == ["b", "c"]


def test_only_refuses_inputs_of_another_config(workdir: Path):
    run.run(adding_config(), workdir, only=("a",))
    with pytest.raises(UserError, match=r"it needs a, .*a\.add was 1\.0, is now 3\.0"):
        run.run(adding_config(a={"add": 3.0}), workdir, only=("b",))


def test_resumes_after_a_crash(workdir: Path):
    config = adding_config(b={"stop": "crash"})
    with pytest.raises(RuntimeError, match="power cut"):
        run.run(config, workdir)
    assert stages_run(workdir) == ["a", "b"]
    run.run(config, workdir)
    assert stages_run(workdir) == ["b", "c", "d"]  # and b found its half-done work


def test_a_stop_on_request_keeps_the_time_spent(workdir: Path):
    config = adding_config(b={"stop": "asked"})
    with pytest.raises(Interrupted):
        run.run(config, workdir)
    spent = json.loads((workdir / "b" / "_START.json").read_text())["seconds"]
    assert spent > 0
    run.run(config, workdir)
    assert json.loads((workdir / "b" / "_DONE.json").read_text())["seconds"] >= round(spent, 3)


def test_an_input_that_is_gone_makes_its_results_stale(workdir: Path):
    run.run(adding_config(), workdir)
    record.remove(workdir, "a")
    with pytest.raises(UserError, match=r"stage b: .*a is run again"):
        run.run(adding_config(), workdir)


def test_an_input_that_is_gone_is_named_before_the_data_are_read(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
):
    nodes = graph.stages(adding_config())
    settings = {"seed": 0, "data": {"builder": "tests.toys.no_data"}}
    monkeypatch.setattr(type(nodes[0].stage), "splits", lambda stage: ("train",))
    known: dict[str, str | None] = {"train": "digest"}
    for decision in record.decide(nodes, settings, known, workdir):
        folder = workdir / decision.node.name
        folder.mkdir(parents=True)
        (folder / "value").write_text("1")
        assert decision.digest
        record_of = {"parts": decision.parts, "digest": decision.digest}
        write_json(folder / "_START.json", record_of)
        finish(folder, **record_of)
    shutil.rmtree(workdir / "a")
    for sources in (dict[str, str | None](), known):
        first, second, *_ = record.decide(nodes, settings, sources, workdir)
        assert (first.action, second.action) == ("run", "refuse")
        assert "holds another run: a is run again;" in second.reason


@pytest.mark.parametrize("name", ["_START.json", "_DONE.json"])
@pytest.mark.parametrize("content", ["[]", "{}", '{"parts": {"format": 2}}', '{"par'])
def test_a_record_that_was_edited_is_named(workdir: Path, name: str, content: str):
    run.run(adding_config(), workdir)
    (workdir / "b" / name).write_text(content)
    with pytest.raises(UserError, match=rf"expected .* {workdir / 'b' / name}.*: restore the file"):
        run.run(adding_config(), workdir)


def test_what_is_advised_about_damaged_records_works(workdir: Path):
    run.run(adding_config(), workdir)
    before = (workdir / "results.json").read_text()
    (workdir / "a" / "_DONE.json").write_text("{")
    with pytest.raises(UserError, match=r"_DONE\.json, .*: restore .*, or delete it to finish"):
        run.run(adding_config(), workdir)
    (workdir / "a" / "_DONE.json").unlink()
    stages_run(workdir)
    run.run(adding_config(), workdir)
    assert stages_run(workdir) == ["a"]  # What was made from its results stays valid.
    (workdir / "a" / "_START.json").write_text("{")
    with pytest.raises(UserError, match=r"or delete \S+/a and run .* with --force$"):
        run.run(adding_config(), workdir)
    shutil.rmtree(workdir / "a")
    run.run(adding_config(), workdir, force=True)
    assert stages_run(workdir) == ["a", "b", "d"]  # c was made from the same b
    assert (workdir / "results.json").read_text().count("value") == before.count("value") > 0


def test_folders_of_others_are_never_touched(workdir: Path, tmp_path: Path):
    (workdir / "b").mkdir(parents=True)
    (workdir / "b" / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(UserError, match="was not made by this program"):
            run.run(adding_config(), workdir, force=force)
    assert (workdir / "b" / "thesis.tex").exists() and not (workdir / "a").exists()


def test_force_does_not_follow_links_out_of_the_workdir(workdir: Path, tmp_path: Path):
    run.run(adding_config(), workdir)
    elsewhere = tmp_path / "elsewhere"
    (workdir / "b").rename(elsewhere)
    (workdir / "b").symlink_to(elsewhere)
    with pytest.raises(UserError):
        run.run(adding_config(b={"add": 2.0}), workdir, force=True)
    with pytest.raises(UserError, match="will not delete"):
        record.remove(workdir, "b")
    assert (elsewhere / "value").exists()


def test_a_deletion_cut_short_leaves_no_finished_stage(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
):
    run.run(adding_config(), workdir)

    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.name != "_DONE.json":
            raise KeyboardInterrupt
        unlink(path)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        record.remove(workdir, "c")
    assert (workdir / "c" / "_START.json").exists()
    assert not (workdir / "c" / "_DONE.json").exists()


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path):
    held = "import sys; from wsss_jax.pipeline import process; from pathlib import Path\n"
    held += "with process.lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path / "w")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"another run \(process {other.pid} on .*is working"),
            process.lock(tmp_path / "w"),
        ):
            pass
        other.kill()
    with process.lock(tmp_path / "w"):  # a killed run leaves no lock behind
        pass


def test_a_child_that_outlives_its_run_holds_nothing(tmp_path: Path):
    held = (
        "import os, sys, time; from wsss_jax.pipeline import process; from pathlib import Path\n"
        "with process.lock(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        # Only the child knows when it has let go of what it inherited.
        "    if child == 0:\n"
        "        print(os.getpid(), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path / "w")], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        child = int(other.stdout.readline())
        try:
            other.kill()
            other.wait()
            os.kill(child, 0)  # it lives
            with process.lock(tmp_path / "w"):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_where_there_are_no_locks_a_run_goes_on(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for _ in range(2):
        with process.lock(tmp_path / "w"):
            assert f"process {os.getpid()} on" in (tmp_path / "w" / ".lock").read_text()
    assert [path.name for path in (tmp_path / "w").iterdir()] == [".lock"]


def test_a_second_run_where_locks_do_not_reach_stops_the_first(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
):
    """As of another machine on a disk whose locks each machine has for itself."""
    with process.lock(workdir):
        check = run.check_alone

        def begin_another(folder: Path) -> None:
            check(folder)  # at the start of the first stage
            (folder / ".lock").write_text("process 7 on another\n")
            monkeypatch.setattr(run, "check_alone", check)

        monkeypatch.setattr(run, "check_alone", begin_another)
        with pytest.raises(UserError, match=r"another run \(process 7 on another\) has begun in"):
            run.run(adding_config(), workdir)
    assert stages_run(workdir) == ["a"] and not (workdir / "a" / "_DONE.json").exists()
    with process.lock(workdir):
        run.run(adding_config(), workdir)


@pytest.mark.parametrize("folders", [True, False])
def test_a_disk_that_does_not_rename_is_refused_at_once(
    folders: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Some mounted buckets rename no folders, and others no files."""
    rename = os.rename

    def renames_files(source: Path, target: Path) -> None:
        if folders != Path(source).is_dir():
            return rename(source, target)
        raise OSError(errno.EMFILE if folders else errno.ENOSYS, "not here")

    monkeypatch.setattr(os, "rename" if folders else "replace", renames_files)
    with (
        pytest.raises(UserError, match=r"renames files and folders .*\(not here\)"),
        process.lock(tmp_path / "w"),
    ):
        pass
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "w").iterdir()] == [".lock"]
    with process.lock(tmp_path / "w"):
        pass


def test_a_lock_ends_with_its_block(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), process.lock(tmp_path):
        _ = 1 / 0
    with (
        process.lock(tmp_path),
        pytest.raises(UserError, match="another run"),
        process.lock(tmp_path),
    ):
        pass


def test_a_workdir_that_cannot_be_made_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use --workdir"), process.lock(tmp_path / "file"):
        pass
