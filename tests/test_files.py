"""Files appear whole or not at all, and nothing of a killed write stays."""

import errno
import os
import re
from pathlib import Path

import pytest

from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, read_bytes, remove_unfinished


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a" / "b.bin"
    with atomic_write(path) as file:
        file.write(b"old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("place", ["made", ".", ".."])
def test_a_folder_is_no_file_to_write(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("made").mkdir()
    message = f"found the folder {re.escape(place)}: name a file in it"
    with pytest.raises(UserError, match=message), atomic_write(place):
        raise AssertionError("nothing may be written")
    assert list(tmp_path.iterdir()) == [tmp_path / "made"] and not list(Path("made").iterdir())


def test_leftovers_of_killed_writes_are_removed(tmp_path: Path):
    with atomic_write(tmp_path / "masks" / "b.png") as file:
        file.write(b"kept")
        (unfinished,) = (tmp_path / "masks").iterdir()
        copy = unfinished.read_bytes()
    unfinished.write_bytes(copy)  # as if the process had been killed before the renaming
    (tmp_path / ".mine").write_bytes(b"kept")
    remove_unfinished(tmp_path)
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".mine", "b.png"]


def test_files_are_as_readable_as_others(tmp_path: Path):
    (tmp_path / "other").write_bytes(b"")
    with atomic_write(tmp_path / "file") as file:
        file.write(b"written")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "found one that cannot be read (Permission denied): check it"),
        (errno.EIO, f"found one that cannot be read ({os.strerror(errno.EIO)}): check it"),
        (errno.ENOTDIR, "found none (Not a directory): check the path"),
    ],
)
def test_a_file_that_may_not_be_read_is_one_line(
    number: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError) as caught:
        read_bytes(tmp_path / "labels.csv")
    assert str(caught.value) == f"expected a file at {tmp_path / 'labels.csv'}, {said}"


def test_a_folder_or_too_large_a_file_is_one_line(tmp_path: Path):
    with pytest.raises(UserError, match="found a folder: replace it or leave it out"):
        read_bytes(tmp_path)
    (tmp_path / "large").write_bytes(b"1234")
    with pytest.raises(UserError, match=r"at most 3 bytes, found 4 in .*: replace it or leave it"):
        read_bytes(tmp_path / "large", 3)
    assert read_bytes(tmp_path / "large", 4) == b"1234"
