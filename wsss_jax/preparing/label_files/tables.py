"""Reads labels of tables: CSV, TSV and XLSX, with and without headers.

The column of images is the one whose cells name photographs of the source. Classes are in columns
that are called so, or each in a column of its own above 0 and 1, or in the only other column.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from wsss_jax.data.class_names import fold
from wsss_jax.data.formats.label_tables import CLASS_NAMES, ID_NAMES, flag, letters, read_rows
from wsss_jax.errors import UserError, first, nearest
from wsss_jax.preparing.class_spelling import split_cell
from wsss_jax.preparing.label_files import Mention
from wsss_jax.preparing.matching import looks_like_a_photograph

TABLES = (".csv", ".tsv", ".xlsx", ".xlsm")
_LOOKED_AT = 2000  # rows
_NO_CLASSES = frozenset(
    (
        *("width", "height", "xmin", "ymin", "xmax", "ymax", "x", "y", "w", "h", "area", "size"),
        *("split", "set", "subset", "fold", "date", "time", "index", "unnamed0", "confidence"),
        *("comment", "comments", "note", "notes", "remark", "remarks", "id", "url", "source"),
    )
)
_YES = ("yes", "y", "x", "✓", "✔")
_NO = ("no", "n")


class Table(NamedTuple):
    """The labels of a table, and how it was understood."""

    mentions: list[Mention]
    remarks: list[str]


def read_label_table(
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
    rows, remarks = _rows(path)
    if not rows:
        raise UserError(f"expected a table of labels in {path}, found no rows: save it again")
    key = _image_column(rows, is_photograph)
    header = rows[0] if _is_header(rows, key, is_photograph) else None
    body = rows[1:] if header else rows
    one_hot = False
    if header is None:
        chosen = [column for column in range(max(map(len, rows))) if column != key]
        width = max(map(len, rows))
    else:
        chosen, one_hot = _class_columns(path, header, body, key, classes, columns)
        width = len(header)
        unused = [n for c, n in enumerate(header) if c not in (key, *chosen) and n]
        remarks.append(
            f"{path.name}: images in column {header[key]!r}, classes in"
            f" {first([repr(header[c]) for c in chosen])}"
            + (f"; not used: {first([repr(n) for n in unused])}" if unused else "")
        )
    mentions = []
    for number, row in enumerate(body, 2 if header else 1):
        cells = [(c, row[c]) for c in chosen if c < len(row)]
        if one_hot:
            assert header is not None
            names = [header[c] for c, cell in cells if _flag(cell)]
        else:
            cells += [(c, row[c]) for c in range(width, len(row))]
            names = [name for _, cell in cells for name in split_cell(cell, classes)]
            names = [name for one in names if (name := _by_number(one, classes))]
        image = row[key] if key < len(row) else ""
        mentions.append(Mention(image, tuple(names), f"row {number} of {path.name}", folder))
    if not classes:
        _refuse_numbers(path, mentions)
    return Table(mentions, remarks)


def _rows(path: Path) -> tuple[list[list[str]], list[str]]:
    if path.suffix.lower() not in (".xlsx", ".xlsm"):
        rows = read_rows(path)
        # Excel writes the delimiter into a line of its own.
        tells_delimiter = bool(rows) and rows[0][0].casefold().startswith("sep=")
        return rows[tells_delimiter:], []
    try:
        import openpyxl
    except ImportError as error:
        raise UserError(
            f'expected openpyxl for {path}, found none: pip install "wsss-jax[xlsx]", or save the'
            " spreadsheet as CSV"
        ) from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheets = {
            sheet.title: [
                [_text(cell) for cell in row] for row in sheet.iter_rows(values_only=True)
            ]
            for sheet in book.worksheets
        }
        book.close()
    except Exception as error:  # Its errors are those of zip files, XML and its own.
        raise UserError(
            f"expected a spreadsheet in {path}, found something else"
            f" ({' '.join(str(error).split())}): save it as CSV"
        ) from error
    full = {title: [row for row in rows if any(row)] for title, rows in sheets.items()}
    full = {title: rows for title, rows in full.items() if rows}
    if not full:
        return [], []
    title, rows = next(iter(full.items()))
    others = [name for name in full if name != title]
    told = [f"{path.name}: the sheet {title!r} is read, not {first(others)}"] if others else []
    return rows, told


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return "" if cell is None else str(cell).strip()


def _image_column(rows: list[list[str]], is_photograph: Callable[[str], bool]) -> int:
    """Returns the column in which most cells name photographs."""
    width = max(map(len, rows))
    looked_at = rows[:_LOOKED_AT]
    hits = [sum(is_photograph(r[c]) for r in looked_at if c < len(r)) for c in range(width)]
    likely = [
        sum(looks_like_a_photograph(r[c]) for r in looked_at if c < len(r)) for c in range(width)
    ]
    named = [letters(cell) in ID_NAMES for cell in rows[0]] + [False] * width
    return max(range(width), key=lambda c: (hits[c], likely[c], named[c], -c))


def _is_header(rows: list[list[str]], key: int, is_photograph: Callable[[str], bool]) -> bool:
    head, *body = rows
    name = head[key] if key < len(head) else ""
    if not body or is_photograph(name) or looks_like_a_photograph(name):
        return False
    if letters(name) in ID_NAMES or any(CLASS_NAMES.fullmatch(letters(cell)) for cell in head):
        return True
    others = {cell for c, cell in enumerate(head) if c != key and cell}
    return not others & {cell for row in body for c, cell in enumerate(row) if c != key}


def _class_columns(
    path: Path,
    header: list[str],
    body: list[list[str]],
    key: int,
    classes: Sequence[str],
    columns: Sequence[str],
) -> tuple[list[int], bool]:
    """Returns the columns of classes, and whether each is a class above 0 and 1."""
    if columns:
        by_name = {letters(name) or name: c for c, name in enumerate(header)}
        for name in columns:
            if (letters(name) or name) not in by_name:
                raise UserError(
                    f"expected the column {name!r} in {path}, found {first(header, 20)}"
                    f"{nearest(name, header)}"
                )
        chosen = [by_name[letters(name) or name] for name in columns]
        flags = all(_all_flags(body, c) for c in chosen)
        return chosen, flags and (len(chosen) > 1 or fold(header[chosen[0]]) in map(fold, classes))
    others = [
        c
        for c in range(len(header))
        if c != key and (header[c] or _cells(body, c)) and letters(header[c]) != "unnamed0"
    ]
    known = set(map(fold, classes))
    _refuse_odd_cells(path, header, body, [c for c in others if fold(header[c]) in known])
    if found := [c for c in others if fold(header[c]) in known and _all_flags(body, c)]:
        return found, True
    named = [c for c in others if CLASS_NAMES.fullmatch(letters(header[c]))]
    texts = [c for c in named if not all(cell.isdecimal() for cell in _cells(body, c))]
    if named and (texts or not _are_flags(body, others)):
        return texts or named, False
    _refuse_odd_cells(path, header, body, others)
    flags = [c for c in others if _all_flags(body, c) and letters(header[c]) not in _NO_CLASSES]
    if _are_flags(body, flags) and (len(flags) > 1 or not named):
        return flags, True
    lists = named or [c for c in others if letters(header[c]) not in _NO_CLASSES]
    if len(lists) == 1:
        return lists, False
    raise UserError(
        f"expected a column of classes in {path}, found {first(header, 20)}: name it with"
        " --label_column (several with commas)"
    )


def _refuse_odd_cells(
    path: Path, header: list[str], body: list[list[str]], columns: list[int]
) -> None:
    """Refuses a cell such as 2 or ? among zeros and ones, which would cost its whole column.

    Only tables are meant that have another column of zeros and ones.
    """
    if not any(_all_flags(body, c) and _cells(body, c) for c in columns):
        return
    for column in columns:
        cells = _cells(body, column)
        odd = [cell for cell in cells if _flag(cell) is None]
        if not odd or 2 * len(odd) > len(cells) or letters(header[column]) in _NO_CLASSES:
            continue
        number = next(
            n for n, row in enumerate(body, 2) if column < len(row) and row[column] in odd
        )
        raise UserError(
            f"expected 0 or 1 (or yes or no) in the column {header[column]!r} of {path}, found"
            f" {odd[0]!r} in row {number}: correct it, or name the columns of classes with"
            " --label_column"
        )


def _cells(body: list[list[str]], column: int) -> list[str]:
    return [row[column] for row in body if column < len(row) and row[column]]


def _flag(cell: str) -> int | None:
    text = cell.casefold()
    return 1 if text in _YES else 0 if text in _NO else flag(cell)


def _all_flags(body: list[list[str]], column: int) -> bool:
    return all(_flag(cell) is not None for cell in _cells(body, column))


def _are_flags(body: list[list[str]], columns: list[int]) -> bool:
    """Returns whether columns have nothing but zeros and ones, and any one."""
    return all(_all_flags(body, c) for c in columns) and any(
        _flag(cell) for c in columns for cell in _cells(body, c)
    )


def _by_number(name: str, classes: Sequence[str]) -> str:
    """Returns the class of a number that counts the given classes; 0 is the background."""
    if not classes or not name.isdecimal() or fold(name) in set(map(fold, classes)):
        return name
    number = int(name)
    return "" if number == 0 else classes[number - 1] if number <= len(classes) else name


def _refuse_numbers(path: Path, mentions: Sequence[Mention]) -> None:
    names = sorted({name for mention in mentions for name in mention.classes})
    if names and all(name.isdecimal() for name in names):
        raise UserError(
            f"expected names of classes in {path}, found only numbers ({first(names)}): give their"
            " names with --classes FILE, one per line (1 is the first, 0 the background)"
        )
