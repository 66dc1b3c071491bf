"""The look of all commands, and how their runs end."""

import argparse
import errno
import importlib
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from wsss_jax import command_line
from wsss_jax.api import Segmentation
from wsss_jax.command_line import Parser
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.errors import Interrupted, UserError
from wsss_jax.pipeline import process
from wsss_jax.pipeline.config import read_recipe

REPOSITORY = Path(__file__).resolve().parents[1]
COMMANDS = (
    "main",
    "compare",
    "predict",
    "evaluate",
    "convert_cams",
    "submission",
    "doctor",
    "export",
)


def _command(name: str) -> ModuleType:
    return importlib.import_module(f"wsss_jax.{name}")


@pytest.fixture
def parser() -> Parser:
    parser = Parser(
        "wsss_jax.toy",
        "A toy.",
        usage="--out DIR",
        examples=[("one", "--out x")],
        statuses={1: "half of it"},
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where it goes")
    parser.add_argument("--config.KEY", metavar="VALUE", help="a value")
    parser.add_argument("--dry_run", action="store_true", help="nothing")
    parser.add_argument("--force", action="store_true", help="anew")
    parser.add_argument("--crf", action=argparse.BooleanOptionalAction, help="one or the other")
    parser.add_argument("--many", type=command_line.whole_number, default=1, help="so many")
    parser.add_argument("--rates", type=command_line.numbers, metavar="R,R", help="rates")
    parser.add_argument("--kind", **command_line.one_of("strict", "present"), help="which")
    return parser


@pytest.mark.parametrize(
    "arguments",
    [
        ["--out", "gs://bucket/run"],
        ["--out=s3://bucket/run"],
        ["--out=x", "--config.data.root=gs://bucket/VOC2012"],
        ["--out=x", "--config.train.init_weights", "https://host/weights.npz"],
    ],
)
def test_addresses_of_buckets_are_refused(arguments: list[str], parser: Parser):
    with pytest.raises(UserError, match=r"found the address (gs|s3|https)://\w+/[\w.]+.*: mount"):
        parser.parse(arguments)


def test_addresses_of_buckets_are_refused_wherever_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from configs import cam_shapes\n"
        "def get_config():\n"
        "    config = cam_shapes.get_config()\n"
        "    config.train.init_weights = 'gs://bucket/weights.npz'\n"
        "    return config\n"
    )
    with pytest.raises(UserError, match=r"in init_weights, found the address gs://"):
        read_recipe(str(recipe))
    monkeypatch.setenv("WSSS_JAX_DATA", "s3://bucket/records")
    data: Any = read_recipe("cam_shapes").data
    with pytest.raises(UserError, match="WSSS_JAX_DATA, found the address s3://bucket/records"):
        DataSettings.from_config(data, "data").open("train")
    monkeypatch.chdir(tmp_path)
    nothing = np.zeros((2, 2), np.uint8)
    mask = Segmentation(np.zeros((2, 2, 3), np.uint8), nothing, np.zeros((1, 2, 2), np.float32), ())
    with pytest.raises(UserError, match=r"in save, found the address gs://bucket/mask\.png"):
        mask.save("gs://bucket/mask.png")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] in ([], ["__pycache__"])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_the_same_parts_everywhere(name: str, capsys: pytest.CaptureFixture[str]):
    assert _command(name).main([f"{name}.py", "--help"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == ""
    assert lines[0].startswith(f"usage: python -m wsss_jax.{name} ")
    places = [lines.index(part) for part in ("options:", "examples:", "exit status:")]
    assert places == sorted(places) and lines[2][0].isupper()
    assert {line.split()[0] for line in lines[places[2] + 1 :]} >= {"0", "2", "130"}
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name: str):
    actions = [a for a in _command(name)._parser()._actions if a.dest != "help"]
    assert actions
    for action in actions:
        assert action.help and action.help.strip(), action.option_strings


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_real_commands(name: str, capsys: pytest.CaptureFixture[str]):
    module = _command(name)
    module.main([f"{name}.py", "--help"])
    text = capsys.readouterr().out.split("examples:\n")[1].split("\nexit status:")[0]
    commands = [
        line for line in text.replace("\\\n", " ").splitlines() if line.startswith("    python")
    ]
    assert 2 <= len(commands) <= 4
    for line in commands:
        python, minus_m, program, *arguments = shlex.split(line)
        assert (python, minus_m, program) == ("python", "-m", f"wsss_jax.{name}")
        options = module._parser().parse(arguments)
        for recipe in getattr(options, "configs", None) or [getattr(options, "config", None)]:
            if recipe is None:
                continue
            config = read_recipe(recipe, options.overrides)
            only = getattr(options, "only", ())
            assert set(only) <= set(config.stages)  # pyright: ignore


@pytest.mark.parametrize("name", COMMANDS)
def test_mistakes_are_one_line_and_exit_2(name: str, capsys: pytest.CaptureFixture[str]):
    module = _command(name)
    nothing_needed = (["--config.seed=1"], "needs --config=RECIPE: add it")
    for arguments, message in (
        nothing_needed if name == "doctor" else ([], " is missing: "),
        (["--hepl"], "unknown flag --hepl; did you mean --help?"),
    ):
        assert module.main([f"{name}.py", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and message in captured.err
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out is missing: where it goes"),
        (["--out"], "--out needs a value: --out DIR"),
        (["--out", "--dry_run"], "--out needs a value: --out DIR"),
        (["--out=x", "--many=1.5"], "--many: expected a whole number, found '1.5'"),
        (["--out=x", "--rates", "1,b"], "--rates: expected numbers such as 0.75,1, found '1,b'"),
        (["--out=x", "--kind=presnt"], "one of strict, present, found 'presnt'; did you mean"),
        (["--out=x", "--dry_run=1"], "--dry_run: "),
        (["--out=x", "--dr"], "unknown flag --dr"),
        (["--out=x", "--mnay=2"], "unknown flag --mnay; did you mean --many?"),
        (["--out=x", "work"], "unexpected argument 'work'"),
    ],
)
def test_what_is_wrong_is_named(parser: Parser, arguments: list[str], message: str):
    with pytest.raises(UserError) as error:
        parser.parse(arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_spellings_of_the_same_option(parser: Parser):
    for written in (["--dry-run"], ["-dry_run"], ["--dry_run"]):
        assert parser.parse(["--out=x", *written]).dry_run
    assert parser.parse(["-out", "x", "--no-crf"]).crf is False
    assert parser.parse(["--out=a", "--out", "b"]).out == Path("b")
    # What is required is asked for every time.
    with pytest.raises(UserError, match="--out is missing"):
        parser.parse([])


def test_values_of_a_recipe_come_anywhere_and_after_a_blank(parser: Parser):
    given = ["--config.a", "7", "-config.b=x y", "--out=x", "--config.c", "-1", "--noconfig.d"]
    options = parser.parse([*given, "--config.e"])
    expected = ["--config.a=7", "--config.b=x y", "--config.c=-1", "--noconfig.d", "--config.e"]
    assert options.overrides == expected
    assert options.out == Path("x") and not options.dry_run


def _ends(parser: Parser, ending: BaseException | int) -> int:
    def body(options: argparse.Namespace) -> int:
        if isinstance(ending, BaseException):
            raise ending
        return ending

    return command_line.run(parser, ["x/toy.py", "--out=a b", "--force", "--dry_run"], body)


_GO_ON = "to resume: python -m wsss_jax.toy '--out=a b' --dry_run\n"


@pytest.mark.parametrize(
    ("ending", "status", "out", "err"),
    [
        (0, 0, "", ""),
        (1, 1, "", ""),
        (UserError("expected x"), 2, "", "error: expected x\n"),
        (Interrupted("after step 3"), 0, "stopped: after step 3\n" + _GO_ON, ""),
        (KeyboardInterrupt(), 130, "", "interrupted; finished work is kept\n" + _GO_ON),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/file"),
            2,
            "",
            "error: no space left on the device while writing /data/file: free some space, or raise"
            " the limit, and run the same command again; finished work is kept\n" + _GO_ON,
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/data"),
            2,
            "",
            "error: cannot use /data: Permission denied\n",
        ),
    ],
)
def test_how_a_run_ends(
    parser: Parser,
    ending: BaseException | int,
    status: int,
    out: str,
    err: str,
    capsys: pytest.CaptureFixture[str],
):
    assert _ends(parser, ending) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (out, err)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.EDQUOT, "x", "/d"),
            "no space left in the quota while writing /d: free some",
        ),
        (OSError(errno.EFBIG, "x", "/d"), "the limit on the size of files (ulimit -f) is reached"),
        (OSError(errno.EROFS, "read-only", "/d"), "cannot use /d: read-only"),
        (OSError(errno.EACCES, "Permission denied", "/d"), "cannot use /d: Permission denied"),
        (OSError(errno.ELOOP, "Too many levels", "/d"), "cannot use /d: Too many levels"),
        (RuntimeError("Symlink loop from '/d'"), "cannot use a path: Symlink loop from '/d'"),
        (OSError(errno.EMFILE, "Too many open files", "/d"), "cannot open /d: Too many open files"),
        (OSError(errno.ENFILE, "Too many open files"), "cannot open a file: Too many open files"),
        (OSError(errno.ENOMEM, "Cannot allocate memory", "/d"), "memory has run out: use a"),
        (TimeoutError("waiting for key 'k'"), "a library has waited too long (waiting for key"),
        (MemoryError(), "memory has run out: use a smaller batch"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "memory has run out: use a smaller"),
    ],
)
def test_errors_of_the_system_are_one_line(
    parser: Parser, error: Exception, said: str, capsys: pytest.CaptureFixture[str]
):
    assert _ends(parser, error) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"error: {said}")
    assert len(lines) == 1 or lines[1:] == [_GO_ON.strip()]


@pytest.mark.parametrize(
    ("soft", "hard", "status", "told"),
    [
        (32, 32, 2, "error: expected a limit of 64 or more open files, found 32: raise it"),
        (32, 500, 0, "500"),
        (64, 64, 0, "64"),
    ],
)
def test_few_open_files_are_raised_or_refused(soft: int, hard: int, status: int, told: str):
    program = (
        "import argparse, resource, sys; from wsss_jax import command_line\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "parser = command_line.Parser('toy', 'A toy.', usage='', examples=[])\n"
        "def body(options):\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "    return 0\n"
        "sys.exit(command_line.run(parser, ['toy.py'], body))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == status
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith(told)


def test_few_addresses_are_refused(monkeypatch: pytest.MonkeyPatch):
    free, most = resource.RLIM_INFINITY, {}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (most.get(which, free), free))
    process.check_addresses()
    most[resource.RLIMIT_AS] = 1536 << 20
    with pytest.raises(UserError, match=r"2 GiB of addresses or more, found 1\.5 GiB: raise it"):
        process.check_addresses()


def test_a_folder_of_links_that_lead_to_each_other_is_one_line(tmp_path: Path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    run = ["--config=cam_shapes", f"--workdir={loop}/run"]
    command = [sys.executable, "-m", "wsss_jax.main", *run]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: cannot use ")


@pytest.mark.parametrize(
    "defect", [ZeroDivisionError(), FileNotFoundError(errno.ENOENT, "No such file", "x"), OSError()]
)
def test_defects_keep_their_traceback(parser: Parser, defect: Exception):
    with pytest.raises(type(defect)):
        _ends(parser, defect)


def test_a_command_that_starts_anew_does_not_say_how_to_go_on(
    capsys: pytest.CaptureFixture[str],
):
    parser = Parser("wsss_jax.toy", "A toy.", usage="", examples=[], goes_on=False)

    def body(options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    assert command_line.run(parser, ["toy.py"], body) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_closed_pipe_ends_quietly():
    """As in ``COMMAND --help | head -0``."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "wsss_jax.evaluate", "--help"]
    with os.fdopen(writing, "wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, cwd=REPOSITORY)
    assert (done.returncode, done.stderr) == (0, b"")
