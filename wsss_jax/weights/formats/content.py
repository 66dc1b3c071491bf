"""What the readers of all formats give."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsss_jax.data.formats.npz import read_values
from wsss_jax.data.formats.torch_pickle import Tensor

SPARE = 8 * 2**20
"""Bytes that arrays may take in memory beyond twice the file's size."""

_ARRAY = 1024
"""Bytes that an array with its name takes at most, without its numbers."""

_TABLE_IN_MEMORY = 20
"""How many times as long a zip archive's table of contents or a JSON header is in memory."""


@dataclass(frozen=True)
class Content:
    """What is in a file.

    Attributes:
      tree: a dictionary by name whose values are arrays, tensors that are read when they are
        needed, further dictionaries or anything else that the file holds.
      metadata: what the file says about itself.
    """

    tree: Mapping[Any, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)


class Numbers:
    """Reads numbers at positions of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = os.path.getsize(path)

    def read(self, at: int, dtype: np.dtype, count: int) -> np.ndarray:
        """Returns `count` numbers that begin at byte `at`.

        Raises:
          ValueError: they reach beyond the end of the file.
        """
        if min(at, count) < 0 or at + count * dtype.itemsize > self.size:
            raise ValueError(f"expected {count} numbers at byte {at}, found the end of the file")
        with open(self.path, "rb") as file:
            file.seek(at)
            return read_values(file, dtype, count)


def as_array(value: Any) -> np.ndarray:
    """Returns the array of a leaf."""
    return value.array() if isinstance(value, Tensor) else value


def check_table(table: int, file_size: int) -> None:
    """Raises ValueError if a description of arrays is too long for the file's size.

    Args:
      table: the length of the description in bytes; in memory it takes many times as much.
      file_size: the size of the file in bytes.
    """
    if table > (2 * file_size + SPARE) // _TABLE_IN_MEMORY:
        raise ValueError(f"expected a short table of contents, found {table} bytes")


def most_arrays(file_size: int) -> int:
    """Returns how many arrays a file of `file_size` bytes may hold."""
    return (2 * file_size + SPARE) // _ARRAY


def check_count(count: int, file_size: int) -> None:
    """Raises ValueError if so many arrays are more than the file explains."""
    if count > most_arrays(file_size):
        raise ValueError(f"expected fewer arrays in {file_size} bytes, found {count}")


def check_total(sizes: list[int], file_size: int) -> None:
    """Raises ValueError if arrays of these sizes in bytes are more than the file explains."""
    check_count(len(sizes), file_size)
    if sum(sizes) > 2 * file_size + SPARE:
        raise ValueError(
            f"expected about {file_size} bytes in all arrays, found {sum(sizes)} in compressed or"
            " repeated ones"
        )
