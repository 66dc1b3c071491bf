"""Reads image-level labels, multi-hot vectors over the C foreground classes, from several sources.

Labels come from label files, from VOC annotations (XML) or from masks. There are three kinds of
label files:

- `.npy` is the field's `cls_labels.npy`: a pickled dictionary that maps an id to a vector of C
  zeros and ones. It is read without executing the pickle. Ids may be integers (2007000032 for
  2007_000032, or 9 for COCO's 000000000009).
- `.npz` has the arrays `ids` [N] and `labels` [N, C], or one vector of C values under each id.
- `.csv`, `.tsv` and `.xlsx` are tables; see `wsss_jax.data.formats.label_tables`.
"""

import functools
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from wsss_jax import console
from wsss_jax.data.columns import Positions
from wsss_jax.data.formats.id_lists import image_id
from wsss_jax.data.formats.label_columns import ID_NAMES, letters
from wsss_jax.data.formats.label_tables import read_label_table
from wsss_jax.data.formats.npz import NUMBERS_AND_TEXT, open_arrays
from wsss_jax.data.formats.safe_pickle import load_numpy_pickle
from wsss_jax.data.formats.table_rows import TABLES
from wsss_jax.data.known_classes import Classes
from wsss_jax.data.matching import Matcher, same_file
from wsss_jax.errors import UserError, first, nearest
from wsss_jax.files import read_bytes

Label = Float[np.ndarray, " c"]

_XML = (".xml", ".XML")
_MOST_XML = 1 << 24  # bytes


def read_label_file(
    path: Path, classes: Sequence[str], is_image: Callable[[str], bool] | None = None
) -> dict[str, Label]:
    """Reads the labels of a label file as a dictionary id -> float32 [C].

    Args:
      path: the file.
      classes: the names of the foreground classes.
      is_image: tells whether a cell of a table names an image; see `read_label_table`.

    Raises:
      UserError: the file is missing or has another format, or a label is not a vector of C zeros
        and ones.
    """
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz", *TABLES) or not path.is_file():
        known = suffix in (".npy", ".npz", *TABLES)
        found = "no such file" if known else f"a {path.suffix or 'nameless'} file"
        advice = "set data.labels to the file"
        if suffix in (".xls", ".ods"):
            advice = "save the spreadsheet as .xlsx or .csv"
        raise UserError(
            f"expected labels in a .csv, .tsv, .xlsx, .npy or .npz file, found {found} at {path}:"
            f" {advice}"
        )
    if suffix in TABLES:
        return _read_table(path, classes, is_image)
    vectors = _read_npy(path) if suffix == ".npy" else _read_npz(path)
    return {name: _check(vector, name, path, len(classes)) for name, vector in vectors.items()}


def names_an_image(ids: Sequence[str]) -> Callable[[str], bool]:
    """Returns a function that tells whether a cell of a table names an image of `ids`."""
    positions = Positions(ids) if len(ids) else None
    matcher = functools.cache(lambda: Matcher(ids))

    def names(text: str) -> bool:
        if positions is not None and len(positions.find([text.encode()])):
            return True
        # Looking for other spellings takes memory, which the name of a column is not worth.
        return letters(text) not in ID_NAMES and bool(matcher().find(text))

    return names


def match(
    labels: Mapping[str, Label],
    ids: Sequence[str],
    source: Path,
    every: Callable[[], Iterable[str]] | None = None,
    unknown: list[str] | None = None,
) -> dict[str, Label]:
    """Returns the labels of those of `ids` that have one, also under another spelling.

    A label may name its image in another case, by its name without folders, or by number. What it
    means depends on neither the split nor the other labels: the name of an image is that image.

    Args:
      labels: the labels by what names their images.
      ids: the ids of a split.
      source: the file of the labels.
      every: returns the ids of all images that there are; None if these are `ids`.
      unknown: gets the labels that name no image.

    Raises:
      UserError: a label that is not the name of an image fits several.
    """
    found = {name: labels[name] for name in ids if name in labels}
    others = [key for key in labels if key not in found]
    if not others:
        return found
    mine = set(ids)
    there = mine if every is None else mine.union(every())
    others = [key for key in others if key not in there]
    matcher = Matcher(sorted(there)) if others else None
    for key in others:
        assert matcher is not None
        meant = [one for one in matcher.find(key) if same_file(key, one)]
        if not meant and unknown is not None:
            unknown.append(key)
        if len(meant) > 1 and not mine.isdisjoint(meant):
            raise UserError(
                f"expected labels of one image each in {source}, found {key!r}, which may be"
                f" {' or '.join(meant[:3])}: write its path below the folder of images"
            )
        if len(meant) == 1 and meant[0] in mine:
            old = found.get(meant[0])
            found[meant[0]] = labels[key] if old is None else np.maximum(old, labels[key])
    return found


def select(
    labels: Mapping[str, Label],
    ids: Sequence[str],
    source: Path,
    every: Callable[[], Iterable[str]] | None = None,
) -> Float[np.ndarray, "n c"]:
    """Returns the labels of `ids`, in their order; see `match`.

    Rows of a table that name no image are told.

    Raises:
      UserError: some ids have no label in `source`, where `labels` come from, or a label fits
        several images.
    """
    unknown: list[str] = []
    found = match(labels, ids, source, every, unknown)
    lacking = [name for name in ids if name not in found]
    if lacking:
        unlisted = sorted(set(labels).difference(ids))
        has = f"; it has {unlisted[0]!r}, which is not listed" if unlisted else ""
        raise UserError(
            f"expected a label for each of the {len(ids)} listed ids, found none for"
            f" {len(lacking)} of them in {source} ({first(lacking)}{has}): complete the labels or"
            " shorten the list"
        )
    if unknown and every is not None and source.suffix.lower() in TABLES:
        shown = first([repr(key) for key in unknown])
        console.note(f"{len(unknown)} labels in {source} name no image: {shown}")
    return np.stack([found[name] for name in ids])


def read_annotations(folder: Path, ids: Iterable[str], classes: Sequence[str]) -> dict[str, Label]:
    """Reads the labels of VOC annotations (``<folder>/<id>.xml``) for the ids that have one.

    Every object counts, also the `difficult` ones. The field's `cls_labels.npy` does the same: for
    images of SBD it has classes that only the boxes have, and it has all classes of the masks.

    Raises:
      UserError: a file is not VOC XML, or it has an object without a name or of an unknown class.
    """
    known = Classes(classes)
    labels = {}
    for name in ids:
        path = next(filter(os.path.exists, (folder / (name + end) for end in _XML)), None)
        if path is None:
            continue
        root = _xml(path)
        label = labels[name] = np.zeros(len(classes), np.float32)
        # Only direct children count, because the parts of a person have names as well.
        for number, one in enumerate(root.findall("object"), 1):
            text = (one.findtext("name") or "").strip()
            if not text:
                raise UserError(
                    f"expected a name in every object of {path}, found none in object {number}:"
                    " complete the annotation"
                )
            position = known.find(text)
            if position is None:
                raise known.unknown([(text, name)], path)
            label[position] = 1
    return labels


def _xml(path: Path) -> ElementTree.Element:
    """Reads an annotation."""
    data = read_bytes(path, _MOST_XML)
    try:
        root = parse_xml(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(
            f"expected a VOC annotation in {path}, found no XML ({error}): copy it again"
        ) from error
    if root.tag != "annotation":
        raise UserError(
            f"expected a VOC annotation in {path}, found <{root.tag}> in place of <annotation>:"
            " export the labels in the format of PASCAL VOC"
        )
    return root


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parses XML in any encoding that Python knows and the file declares.

    Raises:
      ElementTree.ParseError, ValueError, LookupError: it is not XML, or in an unknown encoding.
    """
    declared = re.match(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.-]+)["'][^>]*\?>""", data)
    try:
        return ElementTree.fromstring(data)
    except (ValueError, LookupError):  # The parser knows few encodings itself.
        if declared is None:
            raise
        return ElementTree.fromstring(data[declared.end() :].decode(declared[1].decode()))


def mask_label(mask: UInt8[np.ndarray, "h w"], num_classes: int) -> Label:
    """Returns the label of a mask: which of the class indices 1 to C occur in it."""
    counts = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()
    return (counts[1 : num_classes + 1] > 0).astype(np.float32)


def _read_table(
    path: Path, classes: Sequence[str], is_image: Callable[[str], bool] | None
) -> dict[str, Label]:
    known = Classes(classes)
    table = read_label_table(path, classes, is_image)
    if table.ignored:
        console.note(f"not read of {path}: {first(table.ignored)}")
    if table.columns:
        _check_columns(path, table.columns, known, classes)
    labels: dict[str, Label] = {}
    files: dict[str, str] = {}
    wrong: list[tuple[str, str]] = []
    for row in table.rows:
        try:
            name = image_id(row.image)
        except ValueError as error:
            raise UserError(f"row {row.number} of {path}: {error}") from error
        other = files.get(name, row.image)
        files[name] = max(other, row.image, key=len)
        if not same_file(other, row.image):
            raise UserError(
                f"expected one image of the name {name} in {path}, found {other!r} and"
                f" {row.image!r}: rename one of them, or delete its rows"
            )
        label = labels.setdefault(name, np.zeros(len(classes), np.float32))
        for text in row.classes:
            positions = known.find_all(text)
            label[positions] = 1
            if not positions:
                wrong.append((text, name))
    if wrong:
        raise known.unknown(wrong, path)
    return labels


def _check_columns(
    path: Path, columns: Sequence[str], known: Classes, classes: Sequence[str]
) -> None:
    """Refuses columns of zeros and ones that are not the classes, each once."""
    found = [known.by_name(name) for name in columns]
    strange = [name for name, position in zip(columns, found, strict=True) if position is None]
    if len(strange) == len(columns):
        raise UserError(
            f"expected columns with the names of the classes in {path}, found {first(strange)}"
            f"{nearest(strange[0], classes)}: the classes are {', '.join(classes)}; rename the"
            " columns, or set data.classes to a file of their names"
        )
    if wrong := [*strange, *(n for i, n in enumerate(classes) if found.count(i) != 1)]:
        raise UserError(
            f"expected one column per class in {path}, found missing, unknown or repeated ones"
            f" ({first(sorted(wrong))}): name each of the {len(classes)} classes once"
            f"{nearest(strange[0], classes) if strange else ''}"
        )


def _check(vector: Any, name: str, path: Path, num_classes: int) -> Label:
    try:
        label = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError):
        label = np.empty(0)
    if label.shape != (num_classes,) or not np.isin(label, (0, 1)).all():
        found = f"shape {label.shape}" if label.shape != (num_classes,) else "other values"
        raise UserError(
            f"expected {num_classes} zeros and ones per image, found {found} for {name} in {path}:"
            " check that the labels belong to these classes"
        )
    return label


def _read_npy(path: Path) -> dict[str, Any]:
    content = load_numpy_pickle(path)
    if not isinstance(content, dict):
        raise UserError(
            f"expected a dictionary id -> label in {path}, found {type(content).__name__}: give the"
            " ids as well, in .npz with arrays `ids` and `labels`"
        )
    return {_id(key): vector for key, vector in content.items()}


def _id(key: Any) -> str:
    if isinstance(key, int | np.integer):
        digits = str(key)  # IRN's form of VOC's ids: year and number run together
        return f"{digits[:4]}_{digits[4:]}" if len(digits) == 10 else digits
    name = key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
    try:
        return image_id(name)
    except ValueError:
        return name


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with open_arrays(path, NUMBERS_AND_TEXT) as file:
            arrays = {name: file[name] for name in file}
    except (OSError, ValueError) as error:
        raise UserError(
            f"expected arrays without pickles in {path}, found something else ({error}): save ids"
            " as text and labels as numbers with numpy.savez"
        ) from error
    if set(arrays) != {"ids", "labels"}:
        return arrays
    ids, labels = arrays["ids"], arrays["labels"]
    if ids.ndim != 1 or labels.ndim != 2 or len(ids) != len(labels):
        raise UserError(
            f"expected ids [N] and labels [N, C] in {path}, found shapes {ids.shape} and"
            f" {labels.shape}: save one row of labels per id"
        )
    return dict(zip(map(_id, ids.tolist()), labels, strict=True))
