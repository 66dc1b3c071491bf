"""The command line: mistakes, exit status, signals, several processes."""

import argparse
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toys.fake_recipe import write_recipe
from tests.toys.waiting import LONG, until
from wsss_jax import main as program
from wsss_jax.errors import Interrupted, UserError
from wsss_jax.files import read_json, write_json
from wsss_jax.pipeline import guardian
from wsss_jax.pipeline import process as runtime


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


@pytest.fixture
def command(recipe: Path) -> Callable[..., subprocess.Popen]:
    """Starts the program on the recipe, in a folder that is not the checkout."""
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join([str(recipe.parent), str(Path(__file__).parent.parent)]),
        XDG_CACHE_HOME=str(recipe.parent / "cache"),
        # How long compiling takes depends on the machine; here everything is kept.
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    )

    def start(*arguments: str) -> subprocess.Popen:
        argv = [sys.executable, "-m", "wsss_jax.main", f"--config={recipe}", "--workdir=run"]
        return subprocess.Popen(
            [*argv, *arguments],
            cwd=recipe.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.work.vlaue=4"], "no value work.vlaue; did you mean work.value?"),
        (["--config.wrok.value=4"], "no value wrok.value; did you mean work.value?"),
        (["--config.work.value.x=4"], "no value work.value.x; did you mean work.value?"),
        (
            ["--config.work.value=four"],
            "expected --config.work.value to be a whole number, found 'four'",
        ),
        (
            ["--config.work.value=4.5"],
            "expected --config.work.value to be a whole number, found '4.5'",
        ),
        (["--config.work.rate=big"], "expected --config.work.rate to be a number, found 'big'"),
        (
            ["--config.work.flip=maybe"],
            "expected --config.work.flip to be True or False, found 'maybe'",
        ),
        (
            ["--config.work.sizes=(1,'a')"],
            "sizes to be a tuple, each element a whole number, found",
        ),
        (
            ["--config.work=3"],
            "expected --config.work to be a section with the settings of Stage, found '3'",
        ),
        (["--workdri=x"], "unknown flag --workdri; did you mean --workdir?"),
        (["--only=wrok"], "not a stage of this config (work); did you mean"),
        (["work"], "unexpected argument 'work'"),
        (["--force=1"], "--force"),
        (["--process_id=one"], "--process_id: expected a whole number, found 'one'"),
        (["--config.work.value"], "--config.work.value to be a whole number, found no value"),
        (["--noconfig.work.value"], "--config.work.value to be a whole number, found 'false'"),
        (["--noconfig.work.flip=1"], "expected --config.KEY=VALUE, found --noconfig.work.flip=1"),
        ([], "--workdir is missing: the folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    recipe: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.syspath_prepend(recipe.parent)
    arguments = [*arguments, *(["--workdir=/nowhere"] if arguments else []), "--dry_run"]
    assert program.main(["main", f"--config={recipe}", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=x"], "--config is missing"),
        (["--config=seam_vocc", "--workdir=x"], "no config file seam_vocc; did you mean seam_voc?"),
        (["--config=none.py", "--workdir=x"], "no config file none.py"),
        (["--config"], "--config needs a value: --config RECIPE"),
        (["--config.train.epochs=3", "--workdir=x"], "--config is missing"),
    ],
)
def test_a_missing_config_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
):
    assert program.main(["main", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_help_names_every_flag_and_recipe(capsys: pytest.CaptureFixture):
    assert program.main(["main", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--config", "--workdir", "--only", "--force", "--dry_run", "--distributed"):
        assert word in text
    assert "seam_voc" in text


def test_runs_quietly_and_a_second_run_starts_from_the_cache(command: Callable, recipe: Path):
    arguments = ("--config.work.mode=compile", "--only=work", "--force")
    first = command(*arguments)
    out, err = first.communicate(timeout=LONG)
    assert (first.returncode, err) == (0, "")
    assert "value 3 scales (0.5, 1.0)" in out and "stage" in out
    value = (recipe.parent / "bytes").read_bytes()
    cached = [p for p in (recipe.parent / "cache" / "wsss_jax" / "xla").rglob("*") if p.is_file()]
    assert cached
    second = command(*arguments)
    assert second.communicate(timeout=LONG)[1] == "" and second.returncode == 0
    # A program from the cache computes the same bits.
    assert (recipe.parent / "bytes").read_bytes() == value


@pytest.mark.parametrize(
    ("name", "number"), [("ml_collections", signal.SIGINT), ("filelock", signal.SIGTERM)]
)
def test_an_interrupt_while_libraries_are_imported_is_one_line(
    command: Callable, recipe: Path, name: str, number: signal.Signals
):
    library = recipe.parent / f"{name}.py"  # in front of the real one
    library.write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(600)\n")
    process = command()
    out, err = process.communicate(timeout=LONG)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def test_too_little_memory_for_libraries_is_one_line(command: Callable, recipe: Path):
    library = recipe.parent / "ml_collections.py"  # in front of the real one
    library.write_text("raise ImportError('libjax.so: failed to map segment from shared object')\n")
    process = command()
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 2 and err.count("\n") == 1
    assert err.startswith("error: memory has run out: ")


def _run_raises(monkeypatch: pytest.MonkeyPatch, recipe: Path, error: BaseException) -> int:
    def run(options: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(program, "_run", run)
    return program.main(
        ["x/main.py", f"--config={recipe}", "--workdir=a b", "--force", "--config.work.value=4"]
    )


_GO_ON = r"to resume: python -m wsss_jax.main --config=\S+ '--workdir=a b' --config.work.value=4\n$"


def test_a_stop_on_request_exits_0_and_says_how_to_go_on(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    assert _run_raises(monkeypatch, recipe, Interrupted("stopped after step 3")) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and re.match(
        r"stopped: stopped after step 3\n" + _GO_ON, captured.out
    )


def test_an_interrupt_exits_130_and_says_how_to_go_on(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    assert _run_raises(monkeypatch, recipe, KeyboardInterrupt()) == 130
    assert re.search(_GO_ON, capsys.readouterr().err)


def test_a_full_disk_is_told_in_one_line(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    full = OSError(errno.ENOSPC, "No space left on device", "/data/file")
    assert _run_raises(monkeypatch, recipe, full) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no space left on the device while writing /data/file")
    assert re.search(_GO_ON, error)


def test_defects_keep_their_traceback(recipe: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ZeroDivisionError):
        _run_raises(monkeypatch, recipe, ZeroDivisionError())


def test_sigterm_ends_a_stage_and_the_folder_is_held_until_then(command: Callable, recipe: Path):
    process = command("--config.work.mode=wait")
    until((recipe.parent / "run/work/begun").exists, lambda: process.poll() is None)
    second = command()  # the same folder at the same time
    assert "another run (process" in second.communicate(timeout=LONG)[1] and second.returncode == 2
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 130 and "Traceback" not in err and "to resume: python" in err


def two(command: Callable, *arguments: str) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joined = (f"--coordinator=127.0.0.1:{port}", "--num_processes=2")
    return [command(*joined, f"--process_id={i}", *arguments) for i in range(2)]


@pytest.mark.slow
def test_a_process_that_hangs_is_named_to_those_that_wait_for_it(command: Callable):
    waiting, hanging = two(command, "--config.work.mode=late", "--wait_minutes=0.5")
    _, err = waiting.communicate(timeout=LONG)
    assert waiting.returncode == guardian.LOST
    (line,) = err.splitlines()
    expected = (
        "error: expected all 2 processes at the end of work within 0.5 minutes of the first one,"
        " found that process 1 did not come: see its messages"
    )
    assert line.startswith(expected) and "--wait_minutes" in line
    # It ends, too: it makes no progress itself, and the first one has ended.
    (line,) = hanging.communicate(timeout=LONG)[1].splitlines()
    lost = (guardian.lost_message(), guardian.lost_message([0]))
    assert line in lost or "found no progress of process 1:" in line
    assert hanging.returncode == guardian.LOST


@pytest.mark.slow
def test_several_processes_refuse_a_folder_of_an_older_version(command: Callable, recipe: Path):
    first = command()
    assert first.communicate(timeout=LONG)[1] == "" and first.returncode == 0
    start = recipe.parent / "run/work/_START.json"
    record = read_json(start)
    record["parts"]["format"] = 1
    write_json(start, record)
    both = two(command)
    for process, (out, err) in [(one, one.communicate(timeout=LONG)) for one in both]:
        assert process.returncode == 2 and "starts" not in out
        (line,) = err.splitlines()
        assert line.startswith("error: stage work: ") and "made by an older version" in line


@pytest.mark.slow  # for the grace
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_compiles_ends_after_the_grace(number: int, command: Callable, recipe: Path):
    process = command("--config.work.mode=stuck", "--status_if_stopped=75")
    deadline = time.monotonic() + 300
    while not (recipe.parent / "run" / "work" / "begun").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    lines = err.splitlines()
    assert process.returncode == 75 and lines[0] == "interrupted; finished work is kept"
    assert len(lines) == 2 and lines[1].startswith("to resume: python -m wsss_jax.main")


@pytest.mark.slow
def test_two_processes_share_one_run(command: Callable, recipe: Path):
    both = two(command, "--config.work.mode=share")
    results = [process.communicate(timeout=LONG) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert "value 3" in results[0][0] and "value 3" not in results[1][0]  # the first one speaks
    work = recipe.parent / "run" / "work"
    assert sorted(p.name for p in work.glob("part*")) == ["part0of2", "part1of2"]
    assert (work / "_DONE.json").exists()
    assert command("--config.work.mode=share").communicate(timeout=LONG)[0].count("finished") == 1


def test_incomplete_flags_for_several_processes_are_refused():
    for arguments, message in (
        (("", 2, 0), "need --coordinator"),
        (("host:1", 2, 2), "--process_id below it, found 2 and 2"),
        (("host:1", 0, 0), "--coordinator needs --num_processes"),
    ):
        with pytest.raises(UserError, match=message):
            runtime.join_processes(False, *arguments)
