"""Reads image-level labels, multi-hot vectors over the C foreground classes, from several sources.

Labels come from label files, from VOC annotations (XML) or from masks. There are three kinds of
label files:

- `.npy` is the field's `cls_labels.npy`: a pickled dictionary that maps an id to a vector of C
  zeros and ones. It is read without executing the pickle. Ids may be integers (2007000032 for
  2007_000032).
- `.npz` has the arrays `ids` [N] and `labels` [N, C], or one vector of C values under each id.
- `.csv` has rows ``id,class,class,...`` of any length, where a class is a name or its mask index
  from 1 to C; a first row ``id,...`` without class names is a header. Or it has the header
  ``id,<every class name>`` above rows of zeros and ones.
"""

import csv
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from wsss_jax.data.formats.safe_pickle import load_numpy_pickle
from wsss_jax.errors import UserError

Label = Float[np.ndarray, " c"]


def read_label_file(path: Path, classes: Sequence[str]) -> dict[str, Label]:
    """Reads the labels of a `.npy`, `.npz` or `.csv` file as a dictionary id -> float32 [C].

    Raises:
      UserError: the file is missing or has another format, or a label is not a vector of C zeros
        and ones.
    """
    readers = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None or not path.is_file():
        found = "no such file" if reader else f"a {path.suffix or 'nameless'} file"
        raise UserError(
            f"expected labels in a .npy, .npz or .csv file, found {found} at {path}: set"
            " data.labels to the file"
        )
    return {
        name: _check(vector, name, path, len(classes))
        for name, vector in reader(path, classes).items()
    }


def select(
    labels: Mapping[str, Label], ids: Sequence[str], source: Path
) -> Float[np.ndarray, "n c"]:
    """Returns the labels of `ids`, in their order.

    Raises:
      UserError: some ids have no label in `source`, where `labels` come from.
    """
    lacking = [name for name in ids if name not in labels]
    if lacking:
        others = sorted(set(labels).difference(ids))
        has = f"; it has {others[0]!r}, which is not listed" if others else ""
        raise UserError(
            f"expected a label for each of the {len(ids)} listed ids, found none for"
            f" {len(lacking)} of them in {source} ({first(lacking)}{has}): complete the labels or"
            " shorten the list"
        )
    return np.stack([labels[name] for name in ids])


def read_annotations(folder: Path, ids: Iterable[str], classes: Sequence[str]) -> dict[str, Label]:
    """Reads the labels of VOC annotations (``<folder>/<id>.xml``) for the ids that have one.

    Every object counts, also the `difficult` ones. The field's `cls_labels.npy` does the same: for
    images of SBD it has classes that only the boxes have, and it has all classes of the masks.

    Raises:
      UserError: a file is not VOC XML, or it names an unknown class.
    """
    labels = {}
    for name in ids:
        path = folder / f"{name}.xml"
        try:
            root = ElementTree.fromstring(path.read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ElementTree.ParseError) as error:
            raise UserError(
                f"expected a VOC annotation in {path}, found no XML ({error}): copy it again"
            ) from error
        label = labels[name] = np.zeros(len(classes), np.float32)
        # Only direct children count, because the parts of a person have names as well.
        for object_name in root.findall("object/name"):
            label[_class(object_name.text or "", name, path, classes)] = 1
    return labels


def mask_label(mask: UInt8[np.ndarray, "h w"], num_classes: int) -> Label:
    """Returns the label of a mask: which of the class indices 1 to C occur in it."""
    present = np.zeros(256, np.float32)
    present[mask] = 1
    return present[1 : num_classes + 1]


def first(names: Sequence[str], count: int = 5) -> str:
    """Joins the first few of `names` for an error message."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


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


def _read_npy(path: Path, classes: Sequence[str]) -> dict[str, Any]:
    del classes
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
    return key.decode() if isinstance(key, bytes) else str(key)


def _read_npz(path: Path, classes: Sequence[str]) -> dict[str, Any]:
    del classes
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
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


def _read_csv(path: Path, classes: Sequence[str]) -> dict[str, Any]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            cells = ([cell.strip() for cell in row] for row in csv.reader(file))
            rows = [row for row in cells if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"expected comma-separated text in {path}, found something else ({error}): save it as"
            " UTF-8 text"
        ) from error
    if rows and all(len(row) == 1 and ";" in row[0] for row in rows):
        raise UserError(
            f"expected rows id,class,class,... in {path}, found {rows[0][0]!r}: put commas in place"
            " of semicolons"
        )
    header = rows[0] if rows and rows[0][0].lower() == "id" else []
    if header and set(header[1:]) & set(classes):
        return _read_multi_hot(path, header, rows[1:], classes)
    labels: dict[str, Any] = {}
    for name, *found in rows[1:] if header else rows:
        label = labels.setdefault(name, np.zeros(len(classes), np.float32))
        for cell in filter(None, found):
            label[_class(cell, name, path, classes)] = 1
    return labels


def _read_multi_hot(
    path: Path, header: list[str], rows: list[list[str]], classes: Sequence[str]
) -> dict[str, Any]:
    if sorted(header[1:]) != sorted(classes):
        wrong = sorted(set(header[1:]) ^ set(classes)) or header[1:]
        raise UserError(
            f"expected one column per class in {path}, found missing, unknown or repeated ones"
            f" ({first(wrong)}): name each of the {len(classes)} classes once"
        )
    columns = [header.index(name) for name in classes]
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise UserError(
                f"expected {len(header)} cells in row {number} of {path}, found {len(row)}:"
                " complete the row"
            )
    return {row[0]: [row[column] for column in columns] for row in rows}


def _class(text: str, image: str, path: Path, classes: Sequence[str]) -> int:
    """Returns the position of a class name or mask index among the foreground classes."""
    if text in classes:
        return classes.index(text)
    if text.isdecimal() and 1 <= int(text) <= len(classes):
        return int(text) - 1
    raise UserError(
        f"expected a class name or an index of 1 to {len(classes)} (0 is the background), found"
        f" {text!r} for {image} in {path}: the classes are {', '.join(classes)}; for others set"
        " data.classes to a file of their names"
    )
