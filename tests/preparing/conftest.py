"""The command for folders, as the tests run it."""

from pathlib import Path

import pytest

from tests.preparing.results import Prepare
from wsss_jax.prepare import main


@pytest.fixture
def prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Prepare:
    """Prepares `tmp_path/photos` as `tmp_path/out` and returns what is printed."""

    def run(*options: str, status: int = 0) -> str:
        arguments = ["folder", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
        assert main(["prepare.py", *arguments, *options]) == status
        captured = capsys.readouterr()
        return captured.out + captured.err if status == 0 else captured.err.splitlines()[-1]

    return run
