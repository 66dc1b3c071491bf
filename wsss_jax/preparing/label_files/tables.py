"""Reads labels of tables: CSV, TSV and XLSX, with and without headers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from wsss_jax.data.class_names import fold
from wsss_jax.data.formats.label_tables import read_label_table, refuse_numbers
from wsss_jax.preparing.label_files import Mention

_MOST_DIGITS = 9  # of a number that stands for a class


class Table(NamedTuple):
    """The labels of a table, and how it was understood."""

    mentions: list[Mention]
    remarks: list[str]


def read_mentions(
    path: Path,
    is_photograph: Callable[[str], bool],
    classes: Sequence[str] = (),
    columns: Sequence[str] = (),
    folder: str = "",
) -> Table:
    """Reads the labels of a table.

    Args:
      path: the file.
      is_photograph: tells whether a cell names a photograph of the source.
      classes: the names of the classes, if they are given; numbers then count from 1.
      columns: the columns of classes; none finds them.
      folder: the folder of the table below the source.

    Raises:
      UserError: the file cannot be read, or it is not clear which column has the classes.
    """
    table = read_label_table(path, classes, is_photograph, columns, "--label_column {}")
    known = set(map(fold, classes))
    mentions = []
    for row in table.rows:
        names = (_by_number(name, classes, known) for name in row.classes)
        where = f"row {row.number} of {path.name}"
        mentions.append(Mention(row.image, tuple(filter(None, names)), where, folder))
    if not classes:
        refuse_numbers(path, list({name for one in mentions for name in one.classes}))
    return Table(mentions, table.remarks)


def _by_number(name: str, classes: Sequence[str], known: set[str]) -> str:
    """Returns the class of a number that counts the given classes; 0 is the background."""
    if not known or not name.isdecimal() or fold(name) in known:
        return name
    if len(name) > _MOST_DIGITS:
        return name
    number = int(name)
    return "" if number == 0 else classes[number - 1] if number <= len(classes) else name
