"""Finds what the columns of a table of labels are: images, classes, or something else."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from wsss_jax.data.class_names import fold
from wsss_jax.data.class_spelling import split_cell
from wsss_jax.data.formats.table_rows import Rows
from wsss_jax.data.matching import looks_like_a_photograph
from wsss_jax.errors import UserError, first, nearest

ID_NAMES = frozenset(
    (
        *("id", "ids", "image", "imageid", "imagename", "imagefile", "imagefilename", "imagepath"),
        *("images", "img", "imgid", "imgname", "imgpath", "file", "filename", "filepath", "files"),
        *("name", "path", "photo", "photograph", "picture", "stem", "sample", "sampleid"),
        *("bild", "foto", "datei", "dateiname", "fichier", "imagen", "archivo", "bestand"),
    )
)
"""What columns of images are called, without case and signs."""

_CLASS_NAMES = re.compile(
    r"((class|label|categor(y|ie)|tag|object|species)(e?s|name|names|id)?|klassen?|classe|clase)\d*"
)
_NO_CLASSES = frozenset(
    (
        *("width", "height", "xmin", "ymin", "xmax", "ymax", "x", "y", "w", "h", "area", "size"),
        *("split", "set", "subset", "fold", "date", "time", "index", "confidence", "score"),
        *("comment", "comments", "note", "notes", "remark", "remarks", "id", "url", "source"),
        *(
            "bemerkung",
            "bemerkungen",
            "kommentar",
            "notiz",
            "commentaire",
            "remarque",
            "comentario",
        ),
        *("difficult", "truncated", "occluded", "iscrowd", "crowd", "pose", "verified", "checked"),
    )
)
_TRUE, _FALSE = ("1", "true", "yes", "y", "x", "✓", "✔"), ("", "0", "false", "no", "n")
_LOOKED_AT = 2000  # rows


def letters(name: str) -> str:
    """Returns the name of a column without case and signs."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def image_column(path: Path, rows: Rows, is_image: Callable[[str], bool] | None) -> int:
    """Returns the column in which most cells name images.

    Raises:
      UserError: there is none.
    """
    width = max(map(len, rows))
    named = [letters(cell) in ID_NAMES for cell in rows[0]] + [False] * width
    some = [[row[c] for row in rows[:_LOOKED_AT] if c < len(row)] for c in range(width)]
    if is_image is not None:
        for column in (c for c in range(width) if named[c] and some[c][1:]):
            if all(map(is_image, some[column][1:])):
                return column
    hits = [sum(map(is_image, cells)) if is_image else 0 for cells in some]
    likely = [sum(map(looks_like_a_photograph, cells)) for cells in some]
    if is_image is not None and not any((*hits, *likely, *named)):
        raise UserError(
            f"expected a column that names photographs in {path}, found {first(rows[0], 20)}, where"
            " no cell is the name of one: add a column with the names of the files"
        )
    return max(range(width), key=lambda c: (hits[c], likely[c], named[c], -c))


def has_header(
    rows: Rows, key: int, is_image: Callable[[str], bool] | None, classes: Sequence[str]
) -> bool:
    """Returns whether the first row names the columns, of which `key` has the images."""
    head, *body = rows
    name = head[key] if key < len(head) else ""
    if not body or looks_like_a_photograph(name) or (is_image is not None and is_image(name)):
        return False
    if is_image is None:
        if head[0] == "" or any(letters(cell) in ID_NAMES for cell in head[:3]):
            return True
        # Or else it names classes above zeros and ones, with a name of its own for the images.
        known = set(map(fold, classes))
        flags = [flag(cell) for row in body for cell in row[1:]]
        named = len(head) > 1 and all(fold(cell) in known for cell in head[1:])
        return named and None not in flags and set(flags) == {0, 1}
    if letters(name) in ID_NAMES or any(_CLASS_NAMES.fullmatch(letters(cell)) for cell in head):
        return True
    shapes = {re.sub(r"\d+", "0", row[key]) for row in body if key < len(row)}
    if re.search(r"\d", name) and re.sub(r"\d+", "0", name) in shapes:
        return False  # It is called like the images, but is not there.
    others = {cell for c, cell in enumerate(head) if c != key and cell}
    return not others & {cell for row in body for c, cell in enumerate(row) if c != key}


def columns_without_header(
    path: Path, rows: Rows, key: int, classes: Sequence[str], columns: Sequence[str], option: str
) -> list[int]:
    """Returns the columns of classes: all but that of images, if they can be classes.

    The user can choose them with `option`, which has {} for their names.

    Raises:
      UserError: a column may have something else, such as remarks.
    """
    width = max(map(len, rows))
    chosen = [column for column in range(width) if column != key]
    if columns:
        numbers = [str(column + 1) for column in chosen]
        if strange := [name for name in columns if name not in numbers]:
            raise UserError(
                f"expected numbers of columns among {first(numbers, 20)} for {path}, which has no"
                f" header, found {strange[0]!r}: write a row of names above, or name the column by"
                " number"
            )
        return [int(name) - 1 for name in columns]
    if classes:
        return chosen  # Names that are no classes are refused later.
    names = {c: {fold(n) for cell in _cells(rows, c) for n in split_cell(cell)} for c in chosen}
    columns_of = Counter(name for found in names.values() for name in found)
    is_list = len({len(row) for row in rows}) > 1  # of as many cells as an image has classes
    for column in chosen[1:]:
        alone = all(columns_of[name] == 1 for name in names[column])
        cells = _cells(rows, column)
        prose = [cell for cell in cells if len(cell.split()) > 2]
        if cells and alone and (prose or not is_list):
            raise UserError(
                f"expected classes in all columns of {path}, which has no header, found"
                f" {(prose or cells)[0]!r} in column {column + 1}, whose texts are in no other"
                " column: write a row of names above, such as image, class, remark, or name the"
                f" column of classes with {option.format(chosen[0] + 1)}"
            )
    return chosen


def class_columns(
    path: Path,
    header: list[str],
    body: Rows,
    key: int,
    classes: Sequence[str],
    columns: Sequence[str],
    option: str,
) -> tuple[list[int], bool]:
    """Returns the columns of classes, and whether each is a class above 0 and 1.

    The user can choose them with `option`, which has {} for their names.

    Raises:
      UserError: it is not clear which these are, or a cell among zeros and ones is neither.
    """
    known = set(map(fold, classes))
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
        return chosen, flags and (len(chosen) > 1 or fold(header[chosen[0]]) in known)
    others = [
        c
        for c in range(len(header))
        if c != key and (header[c] or _cells(body, c)) and not _is_index(header[c], body, c)
    ]
    named = [c for c in others if _CLASS_NAMES.fullmatch(letters(header[c]))]
    texts = [c for c in named if not all(cell.isdecimal() for cell in _cells(body, c))]
    flags = [c for c in others if _all_flags(body, c) and letters(header[c]) not in _NO_CLASSES]
    if mine := [c for c in others if fold(header[c]) in known]:
        if all(_all_flags(body, c) for c in mine):
            return [c for c in others if c in mine or c in flags], True
        if not texts:
            _refuse_odd_cells(path, header, body, key, mine, len(body), option)
    if named and (texts or not _are_flags(body, others)):
        return texts or named, False
    if any(_all_flags(body, c) and _cells(body, c) for c in others):
        _refuse_odd_cells(path, header, body, key, others, len(body) // 2, option)
    if _are_flags(body, flags) and (len(flags) > 1 or not named):
        return flags, True
    lists = named or [c for c in others if letters(header[c]) not in _NO_CLASSES]
    if len(lists) == 1:
        return lists, False
    if full := [c for c in lists if _has_classes(_cells(body, c), known)]:
        return full, False
    raise UserError(
        f"expected a column of classes in {path}, found {first(header, 20)}: call it class, or name"
        f" it with {option.format('NAME')}"
    )


def _is_index(name: str, body: Rows, column: int) -> bool:
    """Returns whether a column is the numbers with which pandas begins its rows."""
    if name and not re.fullmatch(r"Unnamed: ?\d+", name):
        return False
    cells = [row[column] if column < len(row) else "" for row in body]
    return cells == [str(number) for number in range(len(body))]


def _has_classes(cells: Sequence[str], known: set[str]) -> bool:
    names = {fold(name) for cell in set(cells) for name in split_cell(cell, known)}
    return bool(names) and names <= known


def _refuse_odd_cells(
    path: Path,
    header: list[str],
    body: Rows,
    key: int,
    columns: list[int],
    most: int,
    option: str,
) -> None:
    """Refuses a cell such as 2 or ? among zeros and ones, which would cost its whole column.

    Columns with more than `most` of such cells are meant otherwise.
    """
    for column in columns:
        odd = [cell for cell in _cells(body, column) if flag(cell) is None]
        if not odd or len(odd) > most or letters(header[column]) in _NO_CLASSES:
            continue
        number, row = next(
            (n, r) for n, r in enumerate(body, 2) if column < len(r) and r[column] in odd
        )
        raise UserError(
            f"expected 0 or 1 (or yes or no) in the column {header[column]!r} of {path}, found"
            f" {odd[0]!r} in row {number} ({row[key] if key < len(row) else ''}): correct it, or"
            f" name the columns of classes with {option.format('NAME,NAME')}"
        )


def _cells(body: Rows, column: int) -> list[str]:
    return [row[column] for row in body if column < len(row) and row[column]]


def flag(cell: str) -> int | None:
    """Returns 0 or 1 for a cell that says no or yes, and otherwise None."""
    text = re.sub(r"\.0+$", "", cell.casefold())
    return 1 if text in _TRUE else 0 if text in _FALSE else None


def _all_flags(body: Rows, column: int) -> bool:
    return all(flag(cell) is not None for cell in _cells(body, column))


def _are_flags(body: Rows, columns: list[int]) -> bool:
    """Returns whether columns have nothing but zeros and ones, and any one."""
    return all(_all_flags(body, c) for c in columns) and any(
        flag(cell) for c in columns for cell in _cells(body, c)
    )
