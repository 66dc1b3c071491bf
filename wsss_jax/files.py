"""Reads files, and writes them so that they appear whole or not at all."""

import contextlib
import errno
import json
import os
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from ml_collections import ConfigDict

from wsss_jax.errors import MAKE_SPACE, UserError, check_no_folder, no_space

ARRAY_READING = threading.Lock()
"""A lock to hold while reading a NumPy file if other threads may read one too. NumPy parses the
header of an array with `ast.literal_eval`, whose depth CPython 3.11 counts once for all threads. If
one thread is interrupted, for example by the garbage collector, another fails with SystemError."""

START, DONE = "_START.json", "_DONE.json"
"""The records that open and close the folder of a stage; see `wsss_jax.pipeline.record`."""

_UNFINISHED = ".tmp"
_REPLACE = "replace it or leave it out"
_MOST_DIGITS = 40  # of a whole number in a record, far from what a float cannot hold
_SMALL = 1 << 16  # bytes; some file systems tell no sizes


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """Yields a binary file that becomes `path` when the block ends without an exception.

    The bytes are written to a temporary file in the same folder, flushed to the disk and renamed,
    so a reader (or a run resumed after a power failure) never sees half a file. The folder is
    created if it does not exist.

    Raises:
      UserError: there is no space left (see `no_space`), or `path` is a folder.
    """
    path = Path(path)
    check_no_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and (what := no_space(error)):
            raise UserError(f"{what} while writing {path}: {MAKE_SPACE}") from error
        raise


def remove_unfinished(folder: Path) -> None:
    """Removes what `atomic_write` left anywhere below `folder` when its process was killed.

    Nothing may be written there at the same time.
    """
    for path in files_below(folder):
        if path.name.startswith(".") and path.name.endswith(_UNFINISHED):
            path.unlink(missing_ok=True)


def make_again(path: Path) -> str:
    """Returns what to do about a damaged or missing file, which a stage of a run may have made."""
    for stage in (path.parent, path.parent.parent):  # `weights.npz`, `cams/<id>.npz`
        if (stage / START).is_file():
            return f"make it again with --only {stage.name} --force"
    return "delete it and make it again" if path.exists() else "make it again"


def files_below(folder: Path) -> Iterator[Path]:
    """Yields the paths of all files below `folder`, one by one; each may be deleted at once.

    `Path.rglob` and `shutil.rmtree` hold the names of a whole folder in memory.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(Path(entry.path))
            else:
                yield Path(entry.path)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "to_dict"):
        return value.to_dict()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def dump_json(value: Any) -> str:
    """Returns `value` as JSON with sorted keys, an indent of two and full float precision."""
    return json.dumps(value, indent=2, sort_keys=True, default=_plain)


def write_json(path: Path | str, value: Any) -> None:
    """Writes `value` as JSON, atomically."""
    with atomic_write(path) as file:
        file.write(dump_json(value).encode() + b"\n")


def read_json(path: Path | str, remedy: str = "restore the file", most: int = 1 << 30) -> Any:
    """Reads a JSON file in UTF-8; `remedy` ends messages. Records have `records.read_record`.

    Raises:
      UserError: the file is missing, cannot be read, has more than `most` bytes, or is not JSON.
    """
    data = read_bytes(Path(path), most, remedy)
    try:
        return json.loads(data.decode(), parse_int=_whole)
    except (ValueError, RecursionError) as error:
        found = f"something else ({error})" if data.strip() else "an empty file"
        raise UserError(f"expected JSON in {path}, found {found}: {remedy}") from error


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def with_tuples(value: Any) -> Any:
    """Replaces the lists in a value of `read_json` by tuples, which settings use."""
    if isinstance(value, dict):
        return {name: with_tuples(one) for name, one in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value


def flatten(config: ConfigDict | dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted path and value of every leaf, in sorted order."""
    for key in sorted(config):
        value = config[key]
        if isinstance(value, ConfigDict | dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_bytes(path: Path, most: int = 1 << 30, remedy: str = "") -> bytes:
    """Reads the content of a file.

    Only regular files are read, because a pipe or a device may never end.

    Args:
      path: the file.
      most: the largest size that is read, in bytes.
      remedy: what to do otherwise, which ends the message, if it is known better than here.

    Raises:
      UserError: the file cannot be read, is not a regular file, or is larger than `most`.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise UserError(
                    f"expected a file at {path}, found a pipe, device or folder:"
                    f" {remedy or _REPLACE}"
                )
            if state.st_size > most:
                raise UserError(
                    f"expected a file of at most {most:,} bytes, found {state.st_size:,} in {path}:"
                    f" {remedy or _REPLACE}"
                )
            # Memory is taken for what is asked for.
            return file.read(min(most, max(state.st_size, _SMALL) + 1))
    except OSError as error:
        if error.errno == errno.EISDIR:
            found, advice = "a folder", _REPLACE
        elif error.errno in (errno.ENOENT, errno.ENOTDIR):
            found, advice = f"none ({error.strerror})", "check the path"
        else:
            found, advice = f"one that cannot be read ({error.strerror})", "check it"
        raise UserError(f"expected a file at {path}, found {found}: {remedy or advice}") from error


def open_regular(path: Path, buffering: int = -1) -> BinaryIO:
    """Opens a file for reading.

    Raises:
      OSError: it cannot be opened, or is a pipe, a device or a folder.
    """
    file = open(path, "rb", buffering, opener=_open_at_once)  # noqa: SIM115 (the caller closes it)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file  # pyright: ignore[reportReturnType] (without a buffer, it is a FileIO)


def _open_at_once(path: str, flags: int) -> int:
    # Opening a pipe would otherwise wait for somebody who writes to it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_files(what: str, folder: Path, ids: Sequence[str], suffix: str) -> None:
    """Raises UserError naming the first ids that have no file ``<id><suffix>`` in `folder`."""
    missing = [name for name in ids if not (folder / f"{name}{suffix}").is_file()]
    check_all_found(what, missing, len(ids), folder)


def check_all_found(what: str, missing: Sequence[str], total: int, where: Path) -> None:
    """Raises UserError naming the first ids that have no file."""
    if missing:
        some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise UserError(
            f"expected a {what} for each of {total} ids in {where}, found none for {len(missing)}:"
            f" {some}. Check the folder and the list"
        )
