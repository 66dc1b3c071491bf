"""Imports go one way, and rooms that promise to do without a library do."""

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import wsss_jax
from tests.toys.waiting import LONG

REPOSITORY = Path(__file__).resolve().parents[1]


def test_contracts_of_imports_hold():
    """The contracts are those of pyproject.toml; what breaks one is printed."""
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " 0 broken" in run.stdout


def _modules(room: str) -> list[str]:
    folder = Path(wsss_jax.__path__[0]) / room
    return [f"wsss_jax.{room}.{module.name}" for module in pkgutil.iter_modules([str(folder)])]


@pytest.mark.parametrize(
    ("room", "libraries"),
    [
        ("host", ("jax", "jaxlib", "flax")),
        ("scoring", ("jax", "jaxlib", "flax")),
        ("inference", ("orbax", "grain", "tensorboardX")),
    ],
)
def test_room_loads_none_of_the_libraries(room, libraries):
    """In a fresh process, for what a library imports lazily or by itself counts too."""
    program = (
        "import importlib, sys\n"
        f"for name in {_modules(room)!r}: importlib.import_module(name)\n"
        f"print([name for name in {libraries!r} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert len(_modules(room)) > 2
    assert (run.returncode, run.stdout) == (0, "[]\n"), run.stderr
