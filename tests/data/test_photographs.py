"""Photographs of a folder."""

import os
import sys
from pathlib import Path

import pytest

from tests.preparing.sources import photographs
from wsss_jax.data.photographs import open_photographs
from wsss_jax.errors import UserError


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems have names in UTF-8 only")
def test_a_name_that_is_not_utf_8_is_left_out(tmp_path: Path):
    photographs(tmp_path, "cat.jpg", "dog.jpg")
    os.rename(os.fsencode(tmp_path / "dog.jpg"), os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    source, errors = open_photographs(tmp_path, ("cat",))
    assert source.ids == ["cat"]
    assert len(errors) == 1 and "expected a file name in UTF-8, found b'" in str(errors[0])


def test_a_photograph_that_changes_or_vanishes_meanwhile_is_named(tmp_path: Path):
    photographs(tmp_path, "cat.jpg", "cow.jpg", "dog.jpg")
    source, _ = open_photographs(tmp_path, ("cat",))
    (tmp_path / "cat.jpg").write_bytes((tmp_path / "dog.jpg").read_bytes() + b" ")
    (tmp_path / "cow.jpg").unlink()
    with pytest.raises(
        UserError, match=r"^expected \S+/cat\.jpg as it was .* has changed: run the"
    ):
        source[source.ids.index("cat")]
    with pytest.raises(UserError, match=r"^expected a file at \S+/cow\.jpg, found none"):
        source[source.ids.index("cow")]
    dog = source[source.ids.index("dog")]
    assert dog["image"] == (tmp_path / "dog.jpg").read_bytes()
