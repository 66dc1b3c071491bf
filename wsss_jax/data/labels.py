"""Reads image-level labels, multi-hot vectors over the C foreground classes, from several sources.

Labels come from label files, from VOC annotations (XML) or from masks. There are three kinds of
label files:

- `.npy` is the field's `cls_labels.npy`: a pickled dictionary that maps an id to a vector of C
  zeros and ones. It is read without executing the pickle. Ids may be integers (2007000032 for
  2007_000032, or 9 for COCO's 000000000009).
- `.npz` has the arrays `ids` [N] and `labels` [N, C], or one vector of C values under each id.
- `.csv` and `.tsv` are tables; see `wsss_jax.data.formats.label_tables`.
"""

import os
import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from wsss_jax.data.formats.id_lists import image_id
from wsss_jax.data.formats.label_tables import Classes, read_table
from wsss_jax.data.formats.safe_pickle import load_numpy_pickle
from wsss_jax.errors import UserError, first
from wsss_jax.files import read_bytes

Label = Float[np.ndarray, " c"]

_XML = (".xml", ".XML")
_MOST_XML = 1 << 24  # bytes


def read_label_file(path: Path, classes: Sequence[str]) -> dict[str, Label]:
    """Reads the labels of a label file as a dictionary id -> float32 [C].

    Raises:
      UserError: the file is missing or has another format, or a label is not a vector of C zeros
        and ones.
    """
    tables = dict.fromkeys((".csv", ".tsv"), read_table)
    reader = ({".npy": _read_npy, ".npz": _read_npz} | tables).get(path.suffix.lower())
    if reader is None or not path.is_file():
        found = "no such file" if reader else f"a {path.suffix or 'nameless'} file"
        advice = "set data.labels to the file"
        if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
            advice = "save the spreadsheet as CSV"
        raise UserError(
            f"expected labels in a .tsv, .npy, .npz or .csv file, found {found} at {path}: {advice}"
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
    others = _other_keys(labels, ids)
    keys = [name if name in labels else others(name) for name in ids]
    lacking = [name for name, key in zip(ids, keys, strict=True) if key not in labels]
    if lacking:
        unlisted = sorted(set(labels).difference(ids))
        has = f"; it has {unlisted[0]!r}, which is not listed" if unlisted else ""
        raise UserError(
            f"expected a label for each of the {len(ids)} listed ids, found none for"
            f" {len(lacking)} of them in {source} ({first(lacking)}{has}): complete the labels or"
            " shorten the list"
        )
    return np.stack([labels[key] for key in keys])


def _other_keys(labels: Mapping[str, Label], ids: Sequence[str]) -> Callable[[str], str]:
    """Returns a function that finds the label of an id that is written differently.

    Labels of COCO have numbers as ids. Those of images in subfolders may have names without the
    folders, if no two images have the same name.
    """
    by_number = _numbered(labels)
    count = Counter(name.rpartition("/")[2] for name in ids) if any("/" in n for n in ids) else {}

    def key(name: str) -> str:
        stem = name.rpartition("/")[2]
        if count.get(stem) == 1 and stem in labels:
            return stem
        return by_number.get(_number(name) or -1, name)

    return key


def _number(name: str) -> int | None:
    """Returns the number that an id of COCO is, such as 9 for 000000000009."""
    found = re.fullmatch(r"(?:COCO_[a-z]+20\d\d_)?([0-9]{12})", name, re.ASCII)
    return int(found[1]) if found else None


def _numbered(labels: Mapping[str, Label]) -> dict[int, str]:
    """Returns the ids that are numbers without leading zeros, by number."""
    return {int(name): name for name in labels if re.fullmatch(r"[1-9][0-9]{0,11}", name, re.ASCII)}


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
    present = np.zeros(256, np.float32)
    present[mask] = 1
    return present[1 : num_classes + 1]


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
    name = key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
    try:
        return image_id(name)
    except ValueError:
        return name


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
