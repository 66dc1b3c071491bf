"""Prepared data sets: written once, whole or not at all, read from threads and processes."""

import errno
import fcntl
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.toys.waiting import until
from wsss_jax.data import prepared
from wsss_jax.data.prepared import RecordBuilder, prepare
from wsss_jax.data.prepared_source import PreparedSource
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.data.sets.shapes import Shapes
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError

IDS = [f"2007_{number:06}" for number in range(1100)]  # three shards


class Numbers(RecordBuilder, skip_registration=True):
    """Record i has i as its label and 7 i as its image."""

    pause = 0.0

    def records(self, positions: range) -> Iterator[Record]:
        time.sleep(self.pause)
        for position in positions:
            yield Record(
                id=self.ids[position],
                image=str(7 * position).encode(),
                size=(position, 2),
                label=np.full(len(self.classes), position, np.float32),
                segmentation=b"mask" if self.masks else None,
            )


def _builder(
    folder: Path,
    kind: type[Numbers] = Numbers,
    *,
    masks: bool = True,
    fingerprint: str = "ab" * 20,
    classes: tuple[str, ...] = ("cat", "dog"),
    ids: Sequence[str] = (),
) -> Numbers:
    return kind(
        folder=folder,
        split="train_aug",
        fingerprint=fingerprint,
        ids=ids or IDS,
        classes=classes,
        masks=masks,
    )


def _check(source: PreparedSource, index: int) -> None:
    record = source[index]
    assert record["id"] == IDS[index]
    assert record["image"] == str(7 * index).encode()
    assert record["size"] == source.sizes[index] == (index, 2)
    assert record["label"].dtype == np.float32
    assert record["label"].tolist() == [index, index]


def test_records_come_back_in_order(tmp_path: Path) -> None:
    source = prepare(_builder(tmp_path))
    assert len(source) == len(IDS)
    assert list(source.ids) == IDS
    assert source.classes == ("cat", "dog")
    for index in (0, 511, 512, 1023, 1024, 1099, 3):
        _check(source, index)
    assert source[5]["segmentation"] == b"mask"
    for index in (-1, len(IDS)):
        with pytest.raises(IndexError):
            source[index]


def test_layout_and_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prepare(_builder(tmp_path))
    (folder,) = (tmp_path / "numbers").glob("*/1.3.0")
    assert folder.parent.name == "train_aug-" + "ab" * 8
    assert len(list(folder.glob("*.array_record-*-of-00003"))) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["numbers"]
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("preparing numbers train_aug: 1100/1100 images")
    assert shown.err.count("\n") == 1


def test_without_masks(tmp_path: Path) -> None:
    source = prepare(_builder(tmp_path, masks=False))
    assert source[2]["segmentation"] is None
    _check(source, 2)


def test_masks_have_at_most_254_classes(tmp_path: Path) -> None:
    classes = tuple(f"class {index}" for index in range(255))
    _builder(tmp_path, classes=classes[:254])
    _builder(tmp_path, classes=classes, masks=False)
    with pytest.raises(UserError, match=r"expected at most 254 classes.* found 255"):
        _builder(tmp_path, classes=classes)


def test_prepared_records_are_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(_builder(tmp_path))
    with monkeypatch.context() as patch:
        patch.delattr(Numbers, "records")
        patch.setattr(RecordBuilder, "__abstractmethods__", frozenset())
        patch.setattr(Numbers, "__abstractmethods__", frozenset())
        again = prepare(_builder(tmp_path))
    assert again.digest == first.digest
    _check(again, 700)
    other = prepare(_builder(tmp_path, fingerprint="cd" * 20))
    assert other.folder != first.folder


def test_records_of_an_older_format_are_prepared_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(_builder(tmp_path).data_dir)
    old = folder.with_name("1.0.0")
    old.mkdir(parents=True)
    (old / "metadata.json").write_text("{}")
    source = prepare(_builder(tmp_path))
    _check(source, 1099)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2 and "an older format (1.0.0)" in lines[0]
    assert "prepared again (1.3.0)" in lines[0]
    assert (old / "metadata.json").read_text() == "{}", "an older program may still read it"
    prepare(_builder(tmp_path))
    assert capfd.readouterr().err == ""


def test_digest_is_of_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = prepare(_builder(tmp_path / "a")).digest
    assert prepare(_builder(tmp_path / "b", fingerprint="cd" * 20)).digest == digest
    assert prepare(_builder(tmp_path / "c", masks=False)).digest != digest
    monkeypatch.setitem(globals(), "IDS", [*IDS[:-1], "other"])
    assert prepare(_builder(tmp_path / "d")).digest != digest


def test_threads_read_at_the_same_time(tmp_path: Path) -> None:
    source = prepare(_builder(tmp_path))
    order = np.random.default_rng(0).integers(0, len(IDS), 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: _check(source, index), order))


def _prepare_slowly(folder: Path) -> None:
    Numbers.pause = 0.3
    prepare(_builder(folder))


class Endless(Numbers, skip_registration=True):
    """Is never done with the second shard."""

    name = "numbers"
    reached = Path()

    def records(self, positions: range) -> Iterator[Record]:
        if positions.start:
            self.reached.touch()
            time.sleep(600)
        yield from super().records(positions)


def _prepare_endlessly(folder: Path) -> None:
    Endless.reached = folder / "second_shard"
    prepare(_builder(folder, Endless))


def test_a_killed_preparation_is_redone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_prepare_endlessly, args=[tmp_path])
    process.start()
    until((tmp_path / "second_shard").exists, process.is_alive)
    assert list(tmp_path.glob("numbers/*/*incomplete*/*.array_record*"))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not list(tmp_path.glob("numbers/*/1.3.0"))
    capfd.readouterr()
    _check(prepare(_builder(tmp_path)), 1099)
    assert not list(tmp_path.glob("numbers/*/*incomplete*"))
    assert "older format" not in capfd.readouterr().err


def test_two_processes_prepare_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_prepare_slowly, args=[tmp_path]) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert capfd.readouterr().err.count("1100/1100") == 1
    _check(prepare(_builder(tmp_path)), 600)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_without_locks_the_first_one_wins(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    other = prepare(_builder(tmp_path / "elsewhere")).folder
    target = Path(_builder(tmp_path / "here").data_dir)

    class Rival(Numbers, skip_registration=True):
        name = "numbers"

        def records(self, positions: range) -> Iterator[Record]:
            yield from super().records(positions)
            if positions.stop == len(IDS):  # another process is done just before this one
                other.rename(target)

    monkeypatch.setattr(fcntl, "flock", no_locks)
    _check(prepare(_builder(tmp_path / "here", Rival)), 1000)


def test_a_refused_preparation_leaves_nothing(tmp_path: Path) -> None:
    class Broken(Numbers, skip_registration=True):
        name = "numbers"

        def records(self, positions: range) -> Iterator[Record]:
            if positions.start:
                raise UserError("expected good files, found bad ones: mend them")
            yield from super().records(positions)

    with pytest.raises(UserError, match=r"^expected good files, found bad ones: mend them$"):
        prepare(_builder(tmp_path, Broken))
    assert {path.name for path in tmp_path.glob("numbers/*/*")} <= {".lock"}
    _check(prepare(_builder(tmp_path)), 1099)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space left"),
        (RuntimeError(f"write() failed: {os.strerror(errno.ENOSPC)}; writing x"), "no space left"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "no permission"),
    ],
)
def test_disk_errors_are_one_line(
    error: Exception, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(prepared, "_write", fail)
    with pytest.raises(UserError, match=rf"{message}.*data\.data_dir"):
        prepare(_builder(tmp_path))


def test_prepared_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSSS_JAX_DATA", "/somewhere")
    assert Shapes(data_dir="/there").prepared_root == Path("/there")
    assert Shapes(data_dir="").prepared_root == Path("/somewhere")
    monkeypatch.delenv("WSSS_JAX_DATA")
    assert Shapes().prepared_root == Path.home() / ".cache/wsss_jax"


@pytest.mark.parametrize("builder", ["coco", "images", "source", "no.such", "", "../x"])
def test_unknown_builders_are_refused(builder: str) -> None:
    with pytest.raises(UserError, match=r"expected data\.builder to be one of shapes, voc2012, or"):
        DataSettings.from_config({"builder": builder}, "data")


def test_a_builder_counts_images_without_making_them(tmp_path: Path) -> None:
    builder = Shapes(train_images=10**6, data_dir=str(tmp_path)).builder("train")
    assert (len(builder.ids), len(builder.classes)) == (10**6, 6)
    assert not Path(builder.data_dir).exists() and not list(tmp_path.iterdir())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def with_a_folder_in_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": flip,
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": Path.unlink,
    "a folder": with_a_folder_in_place,
}
FILES = ("metadata.json", "ids.txt", "sizes.npy", "shard", "dataset_info.json", "features.json")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damaged_records_are_prepared_again(
    name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = prepare(_builder(tmp_path, ids=IDS[:9]))
    capsys.readouterr()
    (path,) = first.folder.glob("*.array_record-*" if name == "shard" else name)
    DAMAGES[damage](path)
    again = prepare(_builder(tmp_path, ids=IDS[:9]))
    said = capsys.readouterr().err.splitlines()[0]
    words = "is missing" if damage == "deleted" else "cannot be read|has changed"
    assert re.fullmatch(
        rf"note: the prepared records of train_aug in {first.folder} are damaged"
        rf" \({re.escape(path.name)} ({words})\) and are prepared again",
        said,
    )
    assert again.digest == first.digest
    for index in range(9):
        _check(again, index)
    prepare(_builder(tmp_path, ids=IDS[:9]))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", ["emptied", "deleted", "a folder"])
def test_records_without_a_whole_list_of_sums(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = prepare(_builder(tmp_path, ids=IDS[:9]))
    capsys.readouterr()
    DAMAGES[damage](first.folder / "sums.json")
    again = prepare(_builder(tmp_path, ids=IDS[:9]))
    # Without one, they are those of an earlier version.
    assert ("are prepared again" in capsys.readouterr().err) == (damage != "deleted")
    assert (first.folder / "sums.json").is_file() and again.digest == first.digest


@pytest.mark.parametrize("kind", ["a file", "a loop"])
def test_something_else_in_place_of_the_records(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(_builder(tmp_path, ids=IDS[:9]).data_dir)
    folder.parent.mkdir(parents=True)
    folder.write_text("") if kind == "a file" else folder.symlink_to(folder)
    _check(prepare(_builder(tmp_path, ids=IDS[:9])), 8)
    assert "are damaged (it is not a folder)" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["middle", "end"])
def test_a_bit_that_flips_while_records_are_read_is_one_line(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = prepare(_builder(tmp_path, ids=IDS[:9]))
    (shard,) = source.folder.glob("*.array_record-*")
    state, content = shard.stat(), bytearray(shard.read_bytes())
    at = content.index(b"2007_000004") if place == "middle" else content.index(b"56")
    content[at] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))  # The disk changes no times.
    opened = prepare(_builder(tmp_path, ids=IDS[:9]))
    with pytest.raises(UserError, match="run the same command again, which prepares them") as e:
        for index in range(9):
            _check(opened, index)
    assert "\n" not in str(e.value)
    again = prepare(_builder(tmp_path, ids=IDS[:9]))
    assert "damaged (a record could not be read)" in capsys.readouterr().err
    for index in range(9):
        _check(again, index)


class _WithoutFiles:
    """Records that cannot be read, because the process has too many open files."""

    def __getitem__(self, index: int) -> None:
        raise RuntimeError("open() failed: Too many open files; opening train.array_record-00001")


def test_too_many_open_files_are_no_damage(tmp_path: Path) -> None:
    source = prepare(_builder(tmp_path, ids=IDS[:3]))
    records, source._records = source._records, _WithoutFiles()
    with pytest.raises(UserError, match=r"^cannot read .*Too many open files: raise the limit"):
        source[0]
    source._records = records
    _check(source, 0)
    _check(prepare(_builder(tmp_path, ids=IDS[:3])), 0)
    assert {path.name for path in source.folder.iterdir()} >= {"sums.json"}
    assert not (source.folder / "unreadable").exists()


def test_a_home_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSSS_JAX_DATA", raising=False)
    monkeypatch.setenv("HOME", "/proc")
    with pytest.raises(UserError, match=r"found no such file.*set data\.data_dir to another"):
        Shapes(train_images=2, size=32).open("train")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(UserError, match=r"expected a home .* found none .*: set data\.data_dir"):
        Shapes(train_images=2, size=32).open("train")


def test_damaged_records_of_an_earlier_version_are_told_in_one_line(tmp_path: Path) -> None:
    source = prepare(_builder(tmp_path, ids=IDS[:9]))
    (source.folder / "sums.json").unlink()
    for name in ("ids.txt", "dataset_info.json"):
        path = source.folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(UserError, match=r"expected prepared records in .* found damaged") as e:
            prepare(_builder(tmp_path, ids=IDS[:9]))
        assert "\n" not in str(e.value) and str(source.folder.parent) in str(e.value)
        (source.folder / "sums.json").unlink(missing_ok=True)
