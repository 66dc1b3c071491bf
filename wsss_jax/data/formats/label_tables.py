"""Tables of image-level labels, as spreadsheets and other programs write them (CSV, TSV).

A table has a row per image or per object: rows of one image are joined. Its first column, or the
column that is called like one of `ID_NAMES`, has ids or files of images. The others are in one of
two forms:

- *lists*, ``id,class,class,...``: cells have classes, by name or by mask index from 1 on, and one
  cell may have several (``cat;dog``, ``cat|dog``). A header may name the columns.
- *one-hot*, with a header that names every class once, above rows of 0 and 1, true and false, or
  empty cells.

The delimiter may be a comma, a semicolon, a tab or a bar, and the encoding is that of `read_text`.
Names of classes need not have the case of the list of classes.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsss_jax.data.class_names import fold, is_background
from wsss_jax.data.formats.id_lists import image_id
from wsss_jax.data.formats.text import read_text
from wsss_jax.data.images import SUFFIXES
from wsss_jax.errors import UserError, first, nearest

_DELIMITERS = ",;\t|"
ID_NAMES = frozenset(
    (
        *("id", "ids", "image", "imageid", "imagename", "imagefile", "imagefilename", "imagepath"),
        *("images", "img", "imgid", "imgname", "imgpath", "file", "filename", "filepath", "files"),
        *("name", "path", "photo", "photograph", "picture", "stem", "sample", "sampleid"),
    )
)
CLASS_NAMES = re.compile(r"(class|label|categor(y|ie)|tag|object|species)(e?s|name|names|id)?\d*")
_TRUE, _FALSE = ("1", "true"), ("", "0", "false")
_SHOWN = 5  # unknown classes that a message names


class Classes:
    """Finds foreground classes by name, whatever its case, or by mask index.

    Args:
      names: the names of the classes in the order of the mask indices from 1 on.
    """

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._exact = {name: position for position, name in enumerate(names)}
        folded = Counter(map(fold, names))
        self._folded = {
            fold(n): position for n, position in self._exact.items() if folded[fold(n)] == 1
        }

    def by_name(self, text: str) -> int | None:
        """Returns the position of a class among the foreground classes, or None."""
        return self._exact.get(text, self._folded.get(fold(text)))

    def find(self, text: str) -> int | None:
        """Does the same for a name or a mask index."""
        found = self.by_name(text)
        if found is None and re.fullmatch(r"0*[1-9][0-9]{0,8}(\.0+)?", text, re.ASCII):
            index = int(text.partition(".")[0])
            found = index - 1 if index <= len(self._names) else None
        return found

    def unknown(self, wrong: Sequence[tuple[str, str]], path: Path) -> UserError:
        """Returns the error about all `wrong` classes, each with the id of its image."""
        distinct = dict(reversed(wrong))  # the first image of each
        (text, image), *others = reversed(distinct.items())
        also = ", ".join(f"{one!r} for {where}" for one, where in others[: _SHOWN - 1])
        more = f" and {len(others) - _SHOWN + 1} more" if len(others) >= _SHOWN else ""
        return UserError(
            f"expected a class name or an index of 1 to {len(self._names)} (0 is the background),"
            f" found {text!r} for {image}{', ' if also else ''}{also}{more} in {path}"
            f"{nearest(text, self._names)}: the classes are {', '.join(self._names)}; for others"
            " set data.classes to a file of their names"
        )


def read_table(path: Path, classes: Sequence[str]) -> dict[str, Any]:
    """Reads a table of labels as a dictionary from an id to a vector of C zeros and ones.

    Raises:
      UserError: the file cannot be read or has another form, or some of its classes are unknown.
    """
    rows = read_rows(path)
    known = Classes(classes)
    header = _header(rows, known)
    if header is None:
        return _lists(path, rows, 0, None, known, len(classes))
    start, body = _without_index(header, rows[1:])
    names = header[start:]
    key = start + _id_column(names, [row[start:] for row in body])
    others = [column for column in range(start, len(header)) if column != key]
    if any(known.by_name(header[column]) is not None for column in others):
        return _one_hot(path, header, body, key, others, known, classes)
    named = [column for column in others if CLASS_NAMES.fullmatch(letters(header[column]))]
    if not named:
        _refuse_numbers(path, header, body, others, classes)
    return _lists(path, body, key, named or others, known, len(classes), len(header))


def table_classes(path: Path) -> tuple[str, ...]:
    """Returns the classes that a table of labels names, sorted, in their most frequent spelling.

    In the one-hot form, these are the columns in their order.

    Raises:
      UserError: the file cannot be read, or names no class.
    """
    rows = read_rows(path)
    known = Classes(())
    header = _header(rows, known)
    start, body = (0, rows) if header is None else _without_index(header, rows[1:])
    names = [] if header is None else header[start:]
    key = start + (_id_column(names, [row[start:] for row in body]) if header else 0)
    width = len(header) if header else max(map(len, rows), default=0)
    others = [column for column in range(start, width) if column != key]
    cells = [row[column] for row in body for column in others if column < len(row)]
    if header is not None and cells and all(flag(cell) is not None for cell in cells):
        found = tuple(header[c] for c in others if not is_background(header[c]))
    else:
        named = [c for c in others if header and CLASS_NAMES.fullmatch(letters(header[c]))]
        spellings = Counter(
            text
            for row in body
            for column in named or others
            if column < len(row)
            for text in _split(row[column], known)
        )
        best: dict[str, str] = {}
        for text, _ in spellings.most_common():
            best.setdefault(fold(text), text)
        found = tuple(sorted(best.values(), key=str.casefold))
    if not found:
        raise UserError(f"expected names of classes in {path}, found none: complete the table")
    return found


def read_rows(path: Path) -> list[list[str]]:
    """Reads the rows of a table that have a cell with text.

    Raises:
      UserError: the file cannot be read, or is no table.
    """
    lines = read_text(path, "a table of labels").splitlines()
    try:
        reader = csv.reader(lines, delimiter=_delimiter(lines), skipinitialspace=True)
        rows = [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:
        raise UserError(
            f"expected a table of labels in {path}, found something else ({error}): save it as CSV"
        ) from error
    return [row for row in rows if any(row)]


def _delimiter(lines: Iterable[str]) -> str:
    """Returns the delimiter that most often comes first in a line, behind an id in quotes."""
    firsts: Counter[str] = Counter()
    for line in lines:
        unquoted = re.sub(r'"[^"]*"', "", line)
        firsts.update([c for c in unquoted if c in _DELIMITERS][:1])
    return firsts.most_common(1)[0][0] if firsts else ","


def _header(rows: list[list[str]], known: Classes) -> list[str] | None:
    """Returns the first row if it names columns."""
    if len(rows) < 2:
        return None
    names, *body = rows
    if names[0] == "" or any(letters(cell) in ID_NAMES for cell in names[:3]):
        return names
    # Or else it names classes above zeros and ones, with a name of its own for the ids.
    flags = [flag(cell) for row in body for cell in row[1:]]
    one_hot = len(names) > 1 and all(known.by_name(cell) is not None for cell in names[1:])
    return names if one_hot and None not in flags and set(flags) == {0, 1} else None


def _without_index(header: list[str], body: list[list[str]]) -> tuple[int, list[list[str]]]:
    """Returns the first column that is not the numbers with which pandas begins its rows."""
    unnamed = header[0] == "" or header[0].startswith("Unnamed:")
    counted = [row[0] for row in body] == [str(number) for number in range(len(body))]
    others = any(letters(cell) in ID_NAMES for cell in header[1:3])
    return (1 if unnamed and counted and others else 0), body


def _id_column(names: list[str], body: list[list[str]]) -> int:
    """Returns the column of ids: one with files if there is one, or else the first."""
    found = [n for n, name in enumerate(names) if letters(name) in ID_NAMES] or [0]
    for column in found:
        cells = [row[column] for row in body if column < len(row)]
        if cells and all(cell.lower().endswith(SUFFIXES) for cell in cells):
            return column
    return found[0]


def _one_hot(
    path: Path,
    header: list[str],
    body: list[list[str]],
    key: int,
    others: list[int],
    known: Classes,
    classes: Sequence[str],
) -> dict[str, Any]:
    found = {column: known.by_name(header[column]) for column in others}
    found = {c: p for c, p in found.items() if p is not None or not is_background(header[c])}
    if sorted(v for v in found.values() if v is not None) != list(range(len(classes))) or (
        None in found.values()
    ):
        strange = [header[column] for column, position in found.items() if position is None]
        count = Counter(found.values())
        wrong = [*strange, *(n for i, n in enumerate(classes) if count[i] != 1)]
        raise UserError(
            f"expected one column per class in {path}, found missing, unknown or repeated ones"
            f" ({first(sorted(wrong))}): name each of the {len(classes)} classes once"
            f"{nearest(strange[0], classes) if strange else ''}"
        )
    labels: dict[str, Any] = {}
    for number, row in enumerate(body, 2):
        if len(row) != len(header):
            raise UserError(
                f"expected {len(header)} cells in row {number} of {path}, found {len(row)}:"
                " complete the row"
            )
        name = _id(row[key], path, number)
        label = labels.setdefault(name, np.zeros(len(classes), np.float32))
        for column, position in found.items():
            value = flag(row[column])
            if value is None:
                raise UserError(
                    f"expected {len(classes)} zeros and ones per image, found other values for"
                    f" {name} in {path} ({row[column]!r}): write 0 or 1"
                )
            label[position] = max(label[position], value)
    return labels


def _lists(
    path: Path,
    body: list[list[str]],
    key: int,
    columns: list[int] | None,
    known: Classes,
    num_classes: int,
    width: int = 0,
) -> dict[str, Any]:
    """Reads lists of classes in `columns` and behind the header, or in all but `key` if None."""
    labels: dict[str, Any] = {}
    wrong: list[tuple[str, str]] = []
    for number, row in enumerate(body, 1):
        name = _id(row[key] if key < len(row) else "", path, number)
        label = labels.setdefault(name, np.zeros(num_classes, np.float32))
        if columns is None:
            cells = row[:key] + row[key + 1 :]
        else:
            cells = [row[column] for column in columns if column < len(row)] + row[width:]
        for text in (one for cell in cells for one in _split(cell, known)):
            position = known.find(text)
            if position is None:
                wrong.append((text, name))
            else:
                label[position] = 1
    if wrong:
        raise known.unknown(wrong, path)
    return labels


def _split(cell: str, known: Classes) -> list[str]:
    """Returns the classes of a cell, which may be a list in the notation of Python."""
    if not cell or known.find(cell) is not None:
        return [cell] if cell else []
    parts = re.split(r"[,;|]", cell.strip("[](){}"))
    return [part for part in (one.strip(" '\"") for one in parts) if part]


def _refuse_numbers(
    path: Path, header: list[str], body: list[list[str]], others: list[int], classes: Sequence[str]
) -> None:
    """Refuses columns that may be classes of other names, above zeros and ones.

    A 1 would otherwise count as the index of the first class.
    """
    if not all(flag(row[c]) is not None for row in body for c in others if c < len(row)):
        return
    names = [header[column] for column in others]
    if names and any(row[c] for row in body for c in others if c < len(row)):
        raise UserError(
            f"expected columns with the names of the classes in {path}, found {first(names)}"
            f"{nearest(names[0], classes)}: the classes are {', '.join(classes)}; rename the"
            " columns, or set data.classes to a file of their names"
        )


def flag(cell: str) -> int | None:
    """Returns 0 or 1 for a cell that says no or yes, and otherwise None."""
    text = re.sub(r"\.0+$", "", cell.lower())
    return 1 if text in _TRUE else 0 if text in _FALSE else None


def _id(cell: str, path: Path, number: int) -> str:
    try:
        return image_id(cell)
    except ValueError as error:
        raise UserError(f"row {number} of {path}: {error}") from error


def letters(name: str) -> str:
    """Returns the name of a column without case and signs."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
