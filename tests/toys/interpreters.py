"""Python interpreters of other environments, which have programs that this one lacks."""

import os
import sys

import pytest

from benchmarks import worker


def other_python(variable: str, module: str) -> str:
    """The interpreter that a variable names; skips the test if it has no `module`."""
    python = os.environ.get(variable, sys.executable)
    reason = worker.why_not(python, module)
    if reason:
        pytest.skip(f"{reason}: set {variable} to an interpreter that can")
    return python
