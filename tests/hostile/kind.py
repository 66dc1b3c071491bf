"""What a kind of file is: good files, files that attack, and what reads them."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.hostile.mutations import mutated

Attack = Callable[[np.random.Generator], bytes]

Files = Mapping[str, bytes]
"""The files of a folder by their paths in it; the first one is given to the reader."""

GIB = 1 << 30

PLACES = ("a folder", "a pipe", "an endless device", "a loop of links", "an unreadable file")
"""What may be in the place of a file."""


class Made(NamedTuple):
    """A good file that was changed, or one that attacks.

    Attributes:
      files: the folder; a text is one of `PLACES`.
      first: the file that is given to the reader.
      what: what was done.
      repaired: whether checksums fit, so that nobody can tell the change.
    """

    files: Mapping[str, bytes | str]
    first: str
    what: str
    repaired: bool


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
      name: its name in the table.
      good: returns good files, small ones; each is a folder.
      read: reads the first file of a folder, given by its path.
      attacks: functions that make a file which attacks.
      times: reading may take so many times the size of the files in memory, and `spare` bytes.
      spare: see `times`.
      reads_only: reading imports and writes nothing, and asks for no more memory than it may have.
      sealed: checksums tell every change, so that a changed file gives what the good one gives, or
        is refused.
      share: the number of files that are made, in relation to other kinds.
      seconds: the processor time that a file may take.
    """

    name: str
    good: Callable[[], Sequence[Files]]
    read: Callable[[Path], object]
    attacks: Sequence[Attack] = ()
    times: int = 3
    spare: int = GIB
    reads_only: bool = False
    sealed: bool = False
    share: float = 1.0
    seconds: float = 5.0

    @functools.cached_property
    def seeds(self) -> Sequence[Files]:
        """The good files."""
        return self.good()

    def make(self, number: int) -> Made:
        """Returns the file of a number; the same for the same number."""
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), number])
        files = self.seeds[int(rng.integers(len(self.seeds)))]
        names = [*files]
        first = names[0]
        if self.attacks and number % 3 == 0:
            attack = self.attacks[number // 3 % len(self.attacks)]
            data, what, repaired = attack(rng), attack.__name__, True
            if rng.random() > 0.7:
                data, what = mutated(rng, data, [data]).data, f"{what}, changed"
            return Made({**files, first: data}, first, what, repaired)
        name = names[int(rng.integers(len(names)))]
        if rng.random() < 0.02:
            place = str(rng.choice(PLACES))
            return Made({**files, name: place}, first, f"{place} as {name}", False)
        if len(names) > 1 and rng.random() < 0.05:
            return _exchanged(rng, files, name)
        others = [one.get(name, files[name]) for one in self.seeds]
        found = mutated(rng, files[name], others)
        what = f"{name}: {found.what}"
        return Made({**files, name: found.data}, first, what, found.repaired)


def _exchanged(rng: np.random.Generator, files: Files, name: str) -> Made:
    """Returns a folder in which a file is another one, or is missing."""
    first = next(iter(files))
    if rng.random() < 0.5:
        left = {one: data for one, data in files.items() if one != name}
        return Made(left, first, f"{name} is missing", False)
    other = str(rng.choice([*files]))
    return Made({**files, name: files[other]}, first, f"{other} as {name}", False)


def single(name: str, *contents: bytes) -> list[Files]:
    """Returns folders of one file each."""
    return [{name: content} for content in contents]


def collected(write: Callable[[Path], Any], folder: Path) -> Files:
    """Returns the files that a function writes into an empty folder."""
    write(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
