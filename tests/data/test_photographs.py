"""Photographs of a folder."""

import os
import sys
from pathlib import Path

import pytest

from tests.preparing.sources import photographs
from wsss_jax.data.photographs import open_photographs


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems have names in UTF-8 only")
def test_a_name_that_is_not_utf_8_is_left_out(tmp_path: Path):
    photographs(tmp_path, "cat.jpg", "dog.jpg")
    os.rename(os.fsencode(tmp_path / "dog.jpg"), os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    source, errors = open_photographs(tmp_path, ("cat",))
    assert source.ids == ["cat"]
    assert len(errors) == 1 and "expected a file name in UTF-8, found b'" in str(errors[0])
