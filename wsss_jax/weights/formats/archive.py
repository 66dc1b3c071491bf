"""Opens zip archives, whose table of contents is bounded before it is read.

The form is that of section 4.3 of the ZIP specification (APPNOTE.TXT).
"""

import contextlib
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from wsss_jax.weights.formats.content import check_table

MAGIC = b"PK\x03\x04"

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_LONGEST_COMMENT = 2**16


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yields the archive at `path`.

    Raises:
      Exception: it is no archive, or its table of contents is too large.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _END.size - _LONGEST_COMMENT))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0:
            raise ValueError("expected the end of a zip archive, found that it is cut off")
        table = _END.unpack_from(tail, at)[5]
        if at >= _LOCATOR_64.size:
            mark, _, where, _ = _LOCATOR_64.unpack_from(tail, at - _LOCATOR_64.size)
            if mark == b"PK\x06\x07":
                file.seek(where)
                table = _END_64.unpack(file.read(_END_64.size))[8]
        check_table(table, size)
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            yield archive
