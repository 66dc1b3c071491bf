"""Keeps a digest of every file that a stage writes, to find those that were damaged or exchanged.

The folder of a stage has a list ``_FILES-<process>.txt`` for every process that worked in it. A
line is the digest, the size in bytes and the path of a file in the folder, and is written after the
file. ``_DONE.json`` has the digests of the lists. A file is as the stage wrote it if one of its
lines fits; a file that was made again has several.

Stages with checkpoints and events for TensorBoard keep these in folders without lines. Checkpoints
have their own checksums, because they are also read before a stage is finished.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from wsss_jax.errors import UserError
from wsss_jax.files import DONE, START, make_again, open_regular
from wsss_jax.records import read_record

Result = TypeVar("Result")

_LIST = re.compile(r"_FILES-\d+\.txt")
_LINE = re.compile(r"([0-9a-f]{32}) (\d+) (.+)")
_BLOCK = 64  # lines whose files are read by threads at once
_DIGEST_BYTES = 16
_READ_BYTES = 1 << 18  # of a large file at once


class Written(NamedTuple):
    """A file that a stage wrote: the path in its folder, the size in bytes, and the digest."""

    name: str
    size: int
    digest: str

    def line(self) -> str:
        """Returns the line of a list."""
        return f"{self.digest} {self.size} {self.name}\n"


def found(folder: Path, name: str) -> Written:
    """Reads a file, and returns what a list would note about it.

    Raises:
      OSError: the file cannot be read, or is a pipe or device.
    """
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    with open_regular(folder / name, buffering=0) as file:
        # Small files take little memory, however many threads read at once.
        most = min(os.fstat(file.fileno()).st_size, _READ_BYTES) + 1
        while block := file.read(most):
            digest.update(block)
        return Written(name, file.tell(), digest.hexdigest())


def write_and_note(
    write: Callable[[Any, tuple[Path, ...]], Result],
    folder: Path,
    task: Any,
    paths: tuple[Path, ...],
) -> tuple[Result, list[Written]]:
    """Calls `write` with a task and the paths of its files in `folder`, and notes the files."""
    result = write(task, paths)
    return result, [found(folder, path.relative_to(folder).as_posix()) for path in paths]


class FileList:
    """The list of the files that one process writes to the folder of a stage.

    Args:
      folder: the folder.
      process: the number of the process.
    """

    def __init__(self, folder: Path, process: int = 0):
        self._file = open(folder / f"_FILES-{process}.txt", "ab")  # noqa: SIM115 (see __exit__)
        if self._file.tell():
            self._file.write(b"\n")  # after a line that a killed process may have begun

    def __enter__(self) -> "FileList":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, files: Iterable[Written]) -> None:
        """Notes files that were written."""
        self._file.write("".join(one.line() for one in files).encode())
        self._file.flush()


def seal(folder: Path) -> dict[str, str]:
    """Notes the files of a stage's folder itself, and returns the digests of its lists by name.

    The lists are on the disk afterwards, so that a power failure leaves none that differs from the
    record with its digest.
    """
    own = sorted(
        one.name
        for one in os.scandir(folder)
        if one.is_file() and not one.name.startswith((".", START, DONE, "_FILES-"))
    )
    with FileList(folder) as noted:
        noted.add(found(folder, name) for name in own)
    for path in _lists(folder):
        with open(path, "ab") as file:
            os.fsync(file.fileno())
    return {path.name: found(folder, path.name).digest for path in _lists(folder)}


def has_list(folder: Path) -> bool:
    """Returns whether any process has noted files in a folder, which need not exist."""
    return folder.is_dir() and bool(_lists(folder))


def intact(folder: Path, wanted: Callable[[str], bool]) -> Iterator[str]:
    """Yields the names of those files in the folder of a stage that are as it wrote them.

    Args:
      folder: the folder, whose stage need not be finished.
      wanted: a function that tells whether a file is asked for.
    """
    return (one.name for one, state in _states(folder, wanted) if not state)


def damage(
    folder: Path, wanted: Callable[[str], bool] = lambda name: True, share: tuple[int, int] = (0, 1)
) -> str:
    """Returns what is wrong with files of a finished stage, in a sentence, or an empty string.

    Nothing is known about the files of a stage that is not finished, or that an earlier version
    finished.

    Args:
      folder: the folder of the stage.
      wanted: a function that tells whether a file is asked for.
      share: (i, n) for the files at i, i + n, i + 2n … of the lists.

    Raises:
      UserError: the record of the stage cannot be read.
    """
    if not (folder / DONE).exists():
        return ""
    remedy = "restore the file, or delete it to finish the stage again"
    sealed = read_record(folder / DONE, {}, remedy, {"files": dict}).get("files", {})
    if not sealed:
        return ""
    lists = {path.name: _digest(folder, path.name) for path in _lists(folder)}
    changed = sorted(name for name in lists | sealed if lists.get(name) != sealed.get(name))
    if changed:
        return _sentence(folder, f"{changed[0]} {_word(changed[0] in lists)}", 0)
    suspects = {one.name: state for one, state in _states(folder, wanted, share) if state}
    if suspects:  # They may have been made again, and noted in another line.
        for name in intact(folder, suspects.__contains__):
            suspects.pop(name, None)
    if not suspects:
        return ""
    name = min(suspects)
    return _sentence(folder, f"{name} {suspects[name]}", len(suspects) - 1)


def check(
    folder: Path, wanted: Callable[[str], bool] = lambda name: True, share: tuple[int, int] = (0, 1)
) -> None:
    """Refuses the folder of a finished stage if files are not as the stage wrote them.

    Args:
      folder: the folder of the stage.
      wanted: a function that tells whether a file is asked for.
      share: (i, n) for the files at i, i + n, i + 2n … of the lists.

    Raises:
      UserError: a file is missing or has changed, or the record of the stage cannot be read.
    """
    if text := damage(folder, wanted, share):
        raise UserError(text)


def _digest(folder: Path, name: str) -> str:
    """Returns the digest of a list, or "" if it cannot be read."""
    try:
        return found(folder, name).digest
    except OSError:
        return ""


def _sentence(folder: Path, what: str, more: int) -> str:
    others = f" (and {more} more)" if more else ""
    return (
        f"expected the files in {folder} as the stage wrote them, found that {what}{others}:"
        f" restore it, or {make_again(folder / DONE)}"
    )


def _word(there: bool) -> str:
    return "has changed" if there else "is missing"


def _lists(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if _LIST.fullmatch(path.name) and not path.is_fifo()
    )


def _states(
    folder: Path, wanted: Callable[[str], bool], share: tuple[int, int] = (0, 1)
) -> Iterator[tuple[Written, str]]:
    """Yields lines of the lists and what is wrong with their files, or an empty string."""

    def state(noted: Written) -> str:
        try:
            # The size tells most differences without reading.
            same = (folder / noted.name).stat().st_size == noted.size
            return "" if same and found(folder, noted.name) == noted else _word(True)
        except OSError:
            return _word(False)

    lines = itertools.islice(_lines(folder), share[0], None, share[1])
    asked = (one for one in lines if wanted(one.name))
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        while block := list(itertools.islice(asked, _BLOCK)):
            yield from zip(block, pool.map(state, block), strict=True)


def _lines(folder: Path) -> Iterator[Written]:
    for path in _lists(folder):
        with open(path, encoding="utf-8", errors="replace", newline="\n") as lines:
            for line in lines:
                noted = _LINE.fullmatch(line.removesuffix("\n"))
                if noted and line.endswith("\n"):
                    yield Written(noted[3], int(noted[2]), noted[1])
