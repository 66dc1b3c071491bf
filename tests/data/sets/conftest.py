"""The folder that the tests change."""

from pathlib import Path

import pytest

from tests.toys.devkits import Devkit


@pytest.fixture
def devkit(tmp_path: Path) -> Devkit:
    return Devkit(tmp_path)
