"""The ids and sizes of many images, in a few bytes each instead of a Python object each."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from jaxtyping import Int, Int32

Size = tuple[int, int]

_LINE_END = 10
_BLOCK = 4096


class Names(Sequence[str]):
    """A sequence of names.

    Args:
      lines: the names in UTF-8, each of which ends with a line feed.
    """

    def __init__(self, lines: bytes):
        self._lines = lines
        ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == _LINE_END)
        self._ends = ends.astype(np.min_scalar_type(len(lines)))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # refuses what is out of range
        start = int(self._ends[index - 1]) + 1 if index else 0
        return self._lines[start : int(self._ends[index])].decode()


class Sizes(Sequence[Size]):
    """A sequence of (height, width)."""

    def __init__(self, array: Int32[np.ndarray, "n 2"]):
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> Size: ...
    @overload
    def __getitem__(self, index: slice) -> list[Size]: ...
    def __getitem__(self, index: int | slice) -> Size | list[Size]:
        if isinstance(index, slice):
            return [(height, width) for height, width in self._array[index].tolist()]
        height, width = self._array[index].tolist()
        return height, width

    def __iter__(self) -> Iterator[Size]:
        for start in range(0, len(self), _BLOCK):
            yield from self[start : start + _BLOCK]


def sorted_positions(names: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Returns the positions of the names in the order of the sorted names."""
    longest = max((len(name.encode()) for name in names), default=1)
    # The order of UTF-8 is that of the characters.
    encoded = np.fromiter((name.encode() for name in names), f"S{max(longest, 1)}", len(names))
    return encoded.argsort(kind="stable")
