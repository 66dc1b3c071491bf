"""Understands tables of image-level labels, as spreadsheets and other programs write them.

A table has a row per image or per object, with or without a header. The column of images is the
one whose cells name images, or that is called so. Classes are in one of two forms:

- *lists*: columns that are called ``class``, ``labels`` or the like, or the only other column, have
  names of classes, or numbers that count the given classes. A cell may have several
  (``cat;dog``, ``cat|dog``), and so may a row.
- *one-hot*: each class has a column of its own, above 0 and 1, true and false, yes and no, or empty
  cells.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from wsss_jax.data.class_names import is_background
from wsss_jax.data.class_spelling import doubtful, is_not_known, separated, spellings, split_cell
from wsss_jax.data.formats.label_columns import (
    class_columns,
    columns_without_header,
    flag,
    has_header,
    image_column,
)
from wsss_jax.data.formats.table_rows import Rows, read_rows
from wsss_jax.errors import UserError, first

_OPTION = "--label_column {} of `python -m wsss_jax.prepare folder`, which makes a data set"


class LabelRow(NamedTuple):
    """What a row says.

    Attributes:
      number: the row in the table, from 1.
      image: the cell that names the image.
      classes: the classes as the table spells them.
    """

    number: int
    image: str
    classes: tuple[str, ...]


class LabelTable(NamedTuple):
    """The labels of a table.

    Attributes:
      rows: what each row says.
      columns: the classes that have a column each; empty if the table has lists.
      remarks: how the table was understood.
      ignored: what was not read, as text: columns, and sheets of a spreadsheet.
    """

    rows: list[LabelRow]
    columns: tuple[str, ...]
    remarks: list[str]
    ignored: tuple[str, ...] = ()


def read_label_table(
    path: Path,
    classes: Sequence[str] = (),
    is_image: Callable[[str], bool] | None = None,
    columns: Sequence[str] = (),
    option: str = _OPTION,
) -> LabelTable:
    """Reads the labels of a table.

    Args:
      path: the file.
      classes: the names of the foreground classes, if they are given.
      is_image: tells whether a cell names an image; None goes by names of columns and suffixes.
      columns: the columns of classes by name or, in a table without header, by number from 1 on;
        none finds them.
      option: how the user can choose `columns`, for messages, with {} for their names.

    Raises:
      UserError: the file cannot be read, or it is not clear what its columns are.
    """
    rows, remarks = read_rows(path)
    ignored = tuple(remarks)
    if not rows:
        raise UserError(f"expected a table of labels in {path}, found no rows: save it again")
    key = image_column(path, rows, is_image)
    if not has_header(rows, key, is_image, classes):
        chosen = columns_without_header(path, rows, key, classes, columns, option)
        return LabelTable(
            _lists(rows, 1, key, chosen, max(map(len, rows)), classes), (), remarks, ignored
        )
    header, body = rows[0], rows[1:]
    chosen, one_hot = class_columns(path, header, body, key, classes, columns, option)
    unused = [name for c, name in enumerate(header) if c not in (key, *chosen) and name]
    ignored += tuple(f"column {name!r}" for name in unused)
    remarks.append(
        f"{path.name}: images in column {header[key]!r}, classes in"
        f" {first([repr(header[c]) for c in chosen])}"
        + (f"; not used: {first([repr(name) for name in unused])}" if unused else "")
    )
    if not one_hot:
        return LabelTable(_lists(body, 2, key, chosen, len(header), classes), (), remarks, ignored)
    chosen = [c for c in chosen if not is_background(header[c])]
    found = []
    for number, row in enumerate(body, 2):
        if len(row) <= max(key, *chosen) or any(row[len(header) :]):
            raise UserError(
                f"expected {len(header)} cells in row {number} of {path}, found {len(row)}:"
                " complete the row"
            )
        names = tuple(header[c] for c in chosen if flag(row[c]))
        found.append(LabelRow(number, row[key], names))
    return LabelTable(found, tuple(header[c] for c in chosen), remarks, ignored)


def table_classes(path: Path, is_image: Callable[[str], bool] | None = None) -> tuple[str, ...]:
    """Returns the classes that a table of labels names, sorted, in their most frequent spelling.

    In the one-hot form, these are the columns in their order.

    Raises:
      UserError: the file cannot be read, names no class, or has names that may be mistakes.
    """
    table = read_label_table(path, is_image=is_image)
    counts = Counter(name for row in table.rows for name in set(row.classes))
    several = separated(counts)
    names = spellings({name: n for name, n in counts.items() if name not in several})
    found = table.columns or tuple(sorted(set(names.values()), key=str.casefold))
    if not table.columns:
        refuse_numbers(path, found)
        _refuse_mistakes(path, table.rows, names)
    if not found:
        raise UserError(f"expected names of classes in {path}, found none: complete the table")
    return found


def refuse_numbers(path: Path, names: Sequence[str]) -> None:
    """Refuses labels that are nothing but numbers, whose classes nobody can tell.

    Raises:
      UserError: all of `names` are numbers.
    """
    if names and all(name.isdecimal() for name in names):
        raise UserError(
            f"expected names of classes in {path}, found only numbers ({first(sorted(names))}):"
            " give their names with --classes FILE (data.classes in a recipe), one per line (1 is"
            " the first, 0 the background)"
        )


def _refuse_mistakes(path: Path, rows: Sequence[LabelRow], names: Mapping[str, str]) -> None:
    """Refuses names that are hardly classes; `names` has the class that each name means."""
    where = {name: row.image for row in reversed(rows) for name in row.classes}
    if unknown := sorted(filter(is_not_known, where)):
        raise UserError(
            f"expected the classes of every image in {path}, found {unknown[0]!r} for"
            f" {where[unknown[0]]}: write them, or remove the row"
        )
    images = Counter(
        chosen for row in rows for chosen in {names[n] for n in row.classes if n in names}
    )
    for name, like in doubtful(images).items():
        raise UserError(
            f"expected classes that occur more often in {path}, found {name!r} only for"
            f" {where[name]}{f'; did you mean {like}?' if like else ''}: correct it, or name the"
            " classes in a file (data.classes)"
        )


def _lists(
    rows: Rows, start: int, key: int, chosen: Sequence[int], width: int, classes: Sequence[str]
) -> list[LabelRow]:
    """Reads lists of classes in the chosen columns and in those behind `width`."""
    split = functools.cache(lambda cell: split_cell(cell, classes))  # there are few different ones
    found = []
    for number, row in enumerate(rows, start):
        cells = [row[c] for c in chosen if c < len(row)] + row[width:]
        names = tuple(name for cell in cells for name in split(cell))
        found.append(LabelRow(number, row[key] if key < len(row) else "", names))
    return found
