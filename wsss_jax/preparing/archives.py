"""Files of a folder, of tar archives or of both, by their paths inside."""

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from wsss_jax.data.plain_folder import walk
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, open_regular, read_bytes
from wsss_jax.preparing.data_set import place

_MOST = 1 << 30


class Entry(NamedTuple):
    """A file by itself, or a part of an archive.

    Attributes:
      path: the file or the archive.
      start: where it begins in the archive.
      size: its bytes, or -1 for a file by itself.
    """

    path: Path
    start: int = 0
    size: int = -1

    def read(self) -> bytes:
        """Returns the content.

        Raises:
          UserError: it is larger than the archive or than any image, or cannot be read.
        """
        if self.size < 0:
            return read_bytes(self.path)
        with self.path.open("rb") as file:
            end = self.start + self.size
            if self.size > _MOST or end > os.fstat(file.fileno()).st_size:
                raise UserError(
                    f"expected files of at most {_MOST:,} bytes in {self.path}, found one that"
                    f" declares {self.size:,}, of which some may be missing: get the archive again"
                )
            file.seek(self.start)
            return file.read(self.size)

    def put(self, target: Path, copy: bool) -> None:
        """Makes the file `target`, unless it is there: a link, or a copy."""
        if self.size < 0:
            return place(self.path, target, copy)
        if not target.is_file() or target.stat().st_size != self.size:
            with atomic_write(target) as file:
                file.write(self.read())
        return None


def find_entries(
    places: Sequence[Path], wanted: re.Pattern[str]
) -> Iterator[tuple[re.Match[str], Entry]]:
    """Yields the files whose paths have the form `wanted`, with the match.

    Args:
      places: folders, which are searched with their subfolders, and ``.tar`` files.
      wanted: a pattern for whole paths below a folder or in an archive, with ``/``.

    Raises:
      UserError: an archive is damaged or compressed.
    """
    for where in places:
        if where.is_dir():
            # Its own name counts, and "." has none.
            folder = Path(os.path.abspath(where))
            for path in walk(folder):
                below = path.relative_to(folder.parent).as_posix()
                if (match := wanted.fullmatch(below)) and path.is_file():
                    yield match, Entry(path)
            continue
        try:
            with open_regular(where) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    # Links and devices are passed over: an archive may not name files elsewhere.
                    match = wanted.fullmatch(member.name)
                    if match and member.isreg() and not member.issparse():
                        yield match, Entry(where, member.offset_data, member.size)
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
            raise UserError(
                f"expected an uncompressed .tar file at {where}, found something else ({error}):"
                " unpack it and give the folder"
            ) from error
