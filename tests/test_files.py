"""Files appear whole or not at all, and nothing of a killed write stays."""

from pathlib import Path

import pytest

from wsss_jax.files import atomic_write, remove_unfinished


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a" / "b.bin"
    with atomic_write(path) as file:
        file.write(b"old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


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
