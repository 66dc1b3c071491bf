"""One program for all commands."""

import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from wsss_jax import __version__
from wsss_jax.__main__ import ALIASES, COMMANDS, main


def test_all_commands_are_listed(capsys: pytest.CaptureFixture[str]):
    package = Path(importlib.import_module("wsss_jax").__path__[0])
    programs = {
        path.stem
        for path in package.glob("*.py")
        if path.stem not in ("__main__", *ALIASES)
        and 'if __name__ == "__main__"' in path.read_text()
    }
    assert {module for module, _ in COMMANDS.values()} >= programs
    for arguments in ([], ["--help"], ["help"]):
        assert main(["wsss-jax", *arguments]) == 0
        listed = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert [words[0] for words in listed if words and words[0] in COMMANDS] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_answer(name: str, capsys: pytest.CaptureFixture[str]):
    assert main(["wsss-jax", name, "--version"]) == 0
    assert capsys.readouterr().out == f"wsss_jax {__version__}\n"
    assert main(["wsss-jax", name.replace("_", "-"), "--help"]) == 0
    module = COMMANDS[name][0]
    program = module.removesuffix("_command")
    assert capsys.readouterr().out.startswith(f"usage: python -m wsss_jax.{program} ")


def test_former_names_still_work(capsys: pytest.CaptureFixture[str]):
    assert main(["wsss-jax", "predict", "--help"]) == 0
    expected = capsys.readouterr().out
    for name, new in ALIASES.items():
        assert new in COMMANDS and name not in COMMANDS
        assert main(["wsss-jax", name, "--help"]) == 0
        assert capsys.readouterr().out == expected
        module = importlib.import_module(f"wsss_jax.{name}")
        assert module.main is importlib.import_module(f"wsss_jax.{new}").main


def test_versions_and_mistakes(capsys: pytest.CaptureFixture[str]):
    assert main(["wsss-jax", "--version"]) == 0
    assert capsys.readouterr().out == f"wsss_jax {__version__}\n"
    assert main(["wsss-jax", "predct"]) == 2
    assert "found 'predct'; did you mean predict?" in capsys.readouterr().err
    assert main(["wsss-jax", "--config=nowhere", "--workdir=x"]) == 2  # options of run
    assert "no config file nowhere" in capsys.readouterr().err


def test_the_line_that_resumes_can_be_pasted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from wsss_jax import main as run

    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_run", interrupted)
    assert main(["wsss-jax", "run", "--config=cam_shapes", "--workdir=my run"]) == 130
    line = capsys.readouterr().err.splitlines()[-1].removeprefix("to resume: ")
    assert shlex.split(line) == [
        *("python", "-m", "wsss_jax.main"),
        *("--config=cam_shapes", "--workdir=my run"),
    ]


def test_python_runs_the_package():
    done = subprocess.run(
        [sys.executable, "-m", "wsss_jax", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"wsss_jax {__version__}\n" and done.stderr == ""
