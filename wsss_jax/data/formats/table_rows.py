"""Reads the cells of tables as spreadsheets write them: CSV, TSV and XLSX."""

import csv
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsss_jax.data.formats.text import read_text
from wsss_jax.errors import UserError, first
from wsss_jax.files import read_bytes

SPREADSHEETS = (".xlsx", ".xlsm")
TABLES = (".csv", ".tsv", *SPREADSHEETS)
"""The suffixes of tables, in lower case; files may have them in any case."""

_DELIMITERS = ",;\t|"
_MOST_UNPACKED = 4 << 20  # bytes of a spreadsheet, beyond 40 times its size
_SPARE_CELLS = 2_000_000  # empty ones, as many as a sheet with a cell in the last row needs

Rows = list[list[str]]


def read_rows(path: Path) -> tuple[Rows, list[str]]:
    """Reads the rows of a table that have a cell with text.

    The delimiter may be a comma, a semicolon, a tab or a bar, and the encoding is that of
    `read_text`. Of a spreadsheet, the first sheet with text is read.

    Returns:
      The rows, whose cells have no blanks around them, and remarks on how they were read.

    Raises:
      UserError: the file cannot be read, or is no table.
    """
    if path.suffix.lower() in SPREADSHEETS:
        return _of_spreadsheet(path)
    # CSV may have line breaks in cells, and csv counts on those of the file.
    lines = read_text(path, "a table of labels").splitlines(keepends=True)
    try:
        reader = csv.reader(lines, delimiter=_delimiter(lines), skipinitialspace=True)
        rows = [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:
        raise UserError(
            f"expected a table of labels in {path}, found something else ({error}): save it as CSV"
        ) from error
    rows = [row for row in rows if any(row)]
    # Excel writes the delimiter into a line of its own.
    tells_delimiter = bool(rows) and rows[0][0].casefold().startswith("sep=")
    return rows[tells_delimiter:], []


def _delimiter(lines: Iterable[str]) -> str:
    """Returns the delimiter that most often comes first in a line, behind an id in quotes."""
    firsts: Counter[str] = Counter()
    for line in lines:
        unquoted = re.sub(r'"[^"]*"', "", line)
        firsts.update([c for c in unquoted if c in _DELIMITERS][:1])
    return firsts.most_common(1)[0][0] if firsts else ","


def _of_spreadsheet(path: Path) -> tuple[Rows, list[str]]:
    try:
        import openpyxl
    except ImportError as error:
        raise UserError(
            f"expected the library openpyxl to read {path}, found none: pip install openpyxl, or"
            " save the spreadsheet as CSV"
        ) from error
    try:
        data = read_bytes(path)
        most = _unpacked(data)
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        sheets = {sheet.title: _cells(sheet, most) for sheet in book.worksheets}
        book.close()
    except UserError:
        raise
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


def _unpacked(data: bytes) -> int:
    """Returns the bytes that the parts of a spreadsheet have when they are unpacked.

    Raises:
      ValueError: they are more than the file justifies.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(part.file_size for part in archive.infolist())
    most = _MOST_UNPACKED + 40 * len(data)
    if size > most:
        raise ValueError(f"{size:,} bytes unpacked, more than {most:,}")
    return size


def _cells(sheet: Any, most: int) -> Rows:
    """Returns the rows of a sheet with text.

    Raises:
      ValueError: it has more cells than `most`, most of them empty.
    """
    sheet.reset_dimensions()  # What a sheet declares may be wrong.
    rows: Rows = []
    count = width = 0
    for row in sheet.iter_rows(values_only=True):
        count += 1 + len(row)
        width = max(width, len(row))
        if max(count, width * len(rows)) > most + _SPARE_CELLS:
            raise ValueError(f"cells far behind the others in {sheet.title}")
        if any(cell is not None for cell in row):
            rows.append([_text(cell) for cell in row])
    return [row + [""] * (width - len(row)) for row in rows]


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return "" if cell is None else str(cell).strip()
