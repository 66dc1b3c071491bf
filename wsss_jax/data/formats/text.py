"""Reads text files as spreadsheets and editors save them, whatever their encoding."""

import re
from pathlib import Path

from wsss_jax import console
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes

_MOST = 1 << 28  # bytes; a list of ten million ids is smaller

_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),  # Before UTF-16, whose mark it begins with.
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_PAIRS = re.compile(rb"[\x80-\xff]{2}")
_NO_TEXT = re.compile(r"[\0-\x08\x0e-\x1a]")


def read_text(path: Path, what: str) -> str:
    """Reads a text file.

    A byte order mark tells the encoding, and otherwise it is UTF-8. In other files, accented
    letters that stand alone are read as Windows-1252, which has those of Latin-1, with a note.
    Where two such bytes follow each other, they may be one letter of any of the encodings of Asia,
    so these files are refused.

    Args:
      path: the file.
      what: what it should have, for messages, such as ``class names``.

    Raises:
      UserError: the file cannot be read, or is not text in one of these encodings.
    """
    return decoded(read_bytes(path, _MOST), what, f"in {path}")


def decoded(data: bytes, what: str, where: str) -> str:
    """Decodes text as `read_text` does; `where`, such as ``in FILE``, is for messages."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8" or b"\0" in data:
            raise _no_text(what, where) from error
        if _PAIRS.search(data):
            raise _unknown(what, where) from error
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            raise _unknown(what, where) from error
        console.note(f"the text {where} is not UTF-8 and is read as Windows-1252")
    if _NO_TEXT.search(text):
        raise _no_text(what, where)
    return text


def _no_text(what: str, where: str) -> UserError:
    return UserError(f"expected {what} {where}, found no text: replace it")


def _unknown(what: str, where: str) -> UserError:
    return UserError(
        f"expected {what} {where} as UTF-8, found another encoding: save the text as UTF-8"
    )
