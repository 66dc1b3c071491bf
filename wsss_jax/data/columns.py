"""The ids and sizes of many images, in a few bytes each instead of a Python object each."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from jaxtyping import Int, Int32, Shaped

Size = tuple[int, int]

_LINE_END = 10
_BLOCK, _BLOCK_BYTES = 256, 1 << 16


class Names(Sequence[str]):
    """A sequence of names.

    Args:
      lines: the names in UTF-8, each of which ends with a line feed.
    """

    def __init__(self, lines: bytes | bytearray):
        self._lines = lines
        self._ends = np.empty(lines.count(b"\n"), np.min_scalar_type(len(lines)))
        found = 0
        for start in range(0, len(lines), _BLOCK_BYTES):
            block = np.frombuffer(lines, np.uint8)[start : start + _BLOCK_BYTES]
            ends = start + np.flatnonzero(block == _LINE_END)
            self._ends[found : found + len(ends)] = ends
            found += len(ends)

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        """Returns a sequence of `names`, none of which has a line feed."""
        lines = bytearray()
        for name in names:
            lines += name.encode() + b"\n"
        return cls(lines)

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
        return self._decoded(index, index)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _BLOCK):
            yield from self._decoded(first, min(first + _BLOCK, len(self)) - 1).split("\n")

    def _decoded(self, first: int, last: int) -> str:
        start = int(self._ends[first - 1]) + 1 if first else 0
        return self._lines[start : int(self._ends[last])].decode()


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
    return _encoded(names).argsort(kind="stable")


class Positions:
    """Finds the positions of names in a sequence, in a few bytes per name."""

    def __init__(self, names: Sequence[str]):
        encoded = _encoded(names)
        self._order = encoded.argsort(kind="stable")
        self._sorted = encoded[self._order]

    def find(self, names: Iterable[bytes]) -> Int[np.ndarray, " m"]:
        """Returns the positions of those of `names`, in UTF-8, that are in the sequence."""
        longest = self._sorted.itemsize
        asked = np.array([name for name in names if len(name) <= longest], self._sorted.dtype)
        places = self._sorted.searchsorted(asked).clip(max=len(self._sorted) - 1)
        return self._order[places[self._sorted[places] == asked]]

    def repeated(self) -> Int[np.ndarray, " m"]:
        """Returns the positions, sorted, at which a name that comes again later is."""
        return np.sort(self._order[:-1][self._sorted[1:] == self._sorted[:-1]])


def _encoded(names: Sequence[str]) -> Shaped[np.ndarray, " n"]:
    longest = max((len(name.encode()) for name in names), default=1)
    # The order of UTF-8 is that of the characters.
    return np.fromiter((name.encode() for name in names), f"S{max(longest, 1)}", len(names))
