"""Writes and reads the mIoU of every image of an evaluation, ``per_image.json`` (id → mIoU in 0…1).

The file is a JSON object with one line per image, so that memory does not grow with the images when
it is written or read.
"""

import contextlib
import json
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float64, Int

from wsss_jax.data.columns import sorted_positions
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, read_json

FILE = "per_image.json"
_BLOCK_ROWS = 4096


class ImageScores:
    """Collects the mIoU of one image after the other at T thresholds, in a file on the disk.

    Which threshold counts is only known after the last image, and memory would hold T numbers per
    image until then.
    """

    def __init__(self, rows: BinaryIO, result: BinaryIO):
        self._rows, self._result = rows, result

    def add(self, miou: Float64[np.ndarray, " t"]) -> None:
        """Adds the next image."""
        self._columns = len(miou)
        self._rows.write(miou.tobytes())

    def write(self, ids: Sequence[str], positions: Int[np.ndarray, " n"], column: int) -> None:
        """Writes the result, sorted by id.

        Args:
          ids: the ids of all images of a source.
          positions: the position in `ids` of every image that was added, in this order.
          column: the position of the threshold that counts.
        """
        values = np.full(len(ids), np.nan)
        values[positions] = self._column(column, len(positions))
        between = "{\n"
        for position in map(int, sorted_positions(ids)):
            if not np.isnan(values[position]):
                name = json.dumps(ids[position])
                self._result.write(f"{between}  {name}: {float(values[position])!r}".encode())
                between = ",\n"
        self._result.write(b"\n}\n")

    def _column(self, column: int, count: int) -> Float64[np.ndarray, " n"]:
        self._rows.seek(0)
        width, values = self._columns, np.empty(count)
        for start in range(0, count, _BLOCK_ROWS):
            rows = np.frombuffer(self._rows.read(8 * width * _BLOCK_ROWS))
            values[start : start + _BLOCK_ROWS] = rows.reshape(-1, width)[:, column]
        return values


@contextlib.contextmanager
def image_scores(folder: Path) -> Iterator[ImageScores]:
    """Yields a writer of the scores of `folder`, which appear at the end of the block.

    Raises:
      UserError: the disk is full.
    """
    with atomic_write(folder / FILE) as result, tempfile.TemporaryFile(dir=folder) as rows:
        yield ImageScores(rows, result)


def read_image_scores(
    folder: Path, ids: Sequence[str], order: Int[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Returns the score of each of `ids` in an evaluation, or NaN where it has none.

    Args:
      folder: the folder of the evaluation.
      ids: the ids of all images of a source.
      order: `sorted_positions` of the ids.

    Raises:
      UserError: the file is damaged.
    """
    values = np.full(len(ids), np.nan)
    positions = map(int, order)
    position = next(positions, None)
    for name, value in _scores(folder):  # sorted by id, too
        while position is not None and ids[position] < name:
            position = next(positions, None)
        if position is not None and ids[position] == name:
            values[position] = value
    return values


def _scores(folder: Path) -> Iterator[tuple[str, float]]:
    """Yields the ids and finite scores of an evaluation, sorted by id, if there is a file.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return
    with path.open("rb") as lines:
        by_line = next(lines, b"").strip() == b"{"
        pairs = _pairs(path, lines) if by_line else _pairs_of_object(path)
        last = ""
        for name, value in pairs:
            if name < last:
                raise UserError(
                    f"expected sorted ids in {path}, found {name} after {last}: restore the file"
                )
            last = name
            if value is None:
                continue
            if type(value) not in (int, float) or abs(value) > sys.float_info.max:
                raise _damaged(path, f"another value than a number for {name}")
            if not math.isnan(value):
                yield name, float(value)


def _pairs(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    ended = False
    for line in lines:
        content = line.strip().removesuffix(b",")
        ended = ended or content == b"}"
        if content not in (b"", b"}"):
            try:
                yield from json.loads(b"{" + content + b"}").items()
            except (ValueError, RecursionError) as error:
                raise _damaged(path, f"something else ({error})") from error
    if not ended:
        raise _damaged(path, "no end")


def _pairs_of_object(path: Path) -> list[tuple[str, Any]]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise _damaged(path, "no object")
    return sorted(value.items())


def _damaged(path: Path, found: str) -> UserError:
    return UserError(f"expected JSON in {path}, found {found}: restore the file")
