"""Finds the labels of a source: label files of one kind, folders, or a pattern of names."""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from wsss_jax.data.class_spelling import split_cell
from wsss_jax.data.formats.table_rows import TABLES
from wsss_jax.data.plain_folder import walk
from wsss_jax.errors import UserError, first
from wsss_jax.preparing.label_files import Mention
from wsss_jax.preparing.label_files.json_files import json_kind, read_json_file, read_json_labels
from wsss_jax.preparing.label_files.tables import read_mentions
from wsss_jax.preparing.label_files.xml_files import read_xml_file, read_xml_labels, xml_kind

FOLDERS = "folders"
"""The value of ``--labels`` that takes the names of folders."""

SPLIT_FOLDERS = {"train": "train", "training": "train", "valid": "val", "val": "val"}
SPLIT_FOLDERS |= {"validation": "val", "test": "test"}
"""Folders with which exports divide a data set, and the names of the splits."""

_SUFFIXES = (*TABLES, ".json", ".jsonl", ".xml")
_HOW = (
    "give a file or folder with --labels, sort the photographs into folders named by class, or"
    " describe their names with --pattern"
)


@dataclasses.dataclass(frozen=True)
class Found:
    """The labels of a source.

    Attributes:
      what: where they come from, for people.
      files: the label files.
      mentions: what they say.
      remarks: how they were understood.
    """

    what: str
    files: list[Path]
    mentions: list[Mention]
    remarks: list[str]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The options that say where labels are.

    Attributes:
      labels: a file, a folder of files, ``folders``, or "" to find them.
      pattern: a pattern of the photographs' names with ``{class}``, or "".
      columns: the columns of classes in a table; none finds them.
      classes: the names of the classes, if they are given.
    """

    labels: str = ""
    pattern: str = ""
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def find_labels(
    source: Path,
    photographs: Sequence[str],
    wanted: Wanted,
    is_photograph: Callable[[str], bool],
    leave_out: Sequence[Path] = (),
) -> Found:
    """Finds and reads the labels of a source.

    Args:
      source: the folder of photographs.
      photographs: the paths of the photographs below it.
      wanted: what the user says about labels.
      is_photograph: tells whether a text names a photograph.
      leave_out: folders that are not searched.

    Raises:
      UserError: there are no labels, several kinds of them, or files that cannot be read.
    """
    if wanted.pattern:
        if wanted.labels:
            raise UserError("expected --labels or --pattern, found both: leave one out")
        return _by_pattern(photographs, wanted)
    if wanted.labels == FOLDERS:
        return _by_folders(photographs, wanted)
    if wanted.labels:
        place = Path(wanted.labels).expanduser()
        if not place.exists():
            raise UserError(f"expected labels at {place}, found nothing: check the path")
        files = sorted(_label_files(place)) if place.is_dir() else [place]
        if not place.is_dir() and place.suffix.lower() not in _SUFFIXES:
            raise UserError(
                f"expected labels as {', '.join(_SUFFIXES)}, found {place}: export them as one of"
                " these"
            )
    else:
        files = sorted(_label_files(source, leave_out))
    kinds = _by_kind(files)
    if not kinds and not wanted.labels and _in_folders(photographs):
        return _by_folders(photographs, wanted)
    if not kinds and files:
        raise UserError(
            f"expected labels in {first([str(path) for path in files], 3)}, found another form:"
            " COCO, labelme, Label Studio, PASCAL VOC and CVAT for images are read, and in JSON"
            " {image: [class, ...]} and lists of {image: ..., labels: [...]}"
        )
    if not kinds:
        where = wanted.labels or source
        raise UserError(f"expected labels, found no file of labels in {where}: {_HOW}")
    if len(kinds) > 1:
        shown = "; ".join(
            f"{kind}: {first([p.name for p, _ in found], 3)}" for kind, found in kinds.items()
        )
        raise UserError(
            f"expected labels of one kind, found {len(kinds)} ({shown}): name one with --labels"
        )
    ((kind, found),) = kinds.items()
    mentions: list[Mention] = []
    remarks: list[str] = []
    for path, content in found:
        folder = _below(path.parent, source)
        if kind in ("PASCAL VOC", "CVAT"):
            mentions += read_xml_labels(path, content, folder)
        elif kind.startswith("table"):
            table = read_mentions(path, is_photograph, wanted.classes, wanted.columns, folder)
            mentions += table.mentions
            remarks += [text for text in table.remarks if text not in remarks]
        else:
            mentions += read_json_labels(path, content, wanted.classes, folder)
    names = first([path.name for path, _ in found], 3)
    kind = "table" if kind.startswith("table") else f"{kind} export" if kind != "plain" else "JSON"
    return Found(f"{names} ({kind})", [path for path, _ in found], mentions, remarks)


def split_folder(below: str) -> str:
    """Returns the split that the first folder of a path names, or ""."""
    return SPLIT_FOLDERS.get(below.partition("/")[0].casefold(), "") if "/" in below else ""


def _label_files(folder: Path, leave_out: Sequence[Path] = ()) -> Iterator[Path]:
    return (path for path in walk(folder, leave_out, []) if path.suffix.lower() in _SUFFIXES)


def _by_kind(files: Sequence[Path]) -> dict[str, list[tuple[Path, Any]]]:
    """Returns the label files by kind, with their content; files without labels are left out.

    Tables belong together if they have the same name, such as ``_annotations.csv`` in each folder
    of a split.
    """
    kinds: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    for path in files:
        content: Any = None
        if path.suffix.lower() == ".xml":
            content = read_xml_file(path)
            kind = xml_kind(content)
        elif path.suffix.lower() in (".json", ".jsonl"):
            content = read_json_file(path)
            kind = json_kind(content)
        else:
            kind = f"table {path.name}"
        if kind:
            kinds[kind].append((path, content))
    return kinds


def _below(folder: Path, source: Path) -> str:
    try:
        below = folder.resolve().relative_to(source.resolve()).as_posix()
    except ValueError:
        return ""
    return "" if below == "." else below


def _in_folders(photographs: Sequence[str]) -> bool:
    inner = [_class_folder(below) for below in photographs]
    return all(inner) and len(set(inner)) > 1


def _class_folder(below: str) -> str:
    """Returns the outermost folder of a path that names no split, or ""."""
    parts = below.split("/")[:-1]
    if parts and parts[0].casefold() in SPLIT_FOLDERS:
        parts = parts[1:]
    return parts[0] if parts else ""


def _by_folders(photographs: Sequence[str], wanted: Wanted) -> Found:
    mentions = [
        Mention(below, tuple(split_cell(folder, wanted.classes)), below)
        for below in photographs
        if (folder := _class_folder(below))
    ]
    if not mentions:
        raise UserError(f"expected photographs in folders named by class, found none: {_HOW}")
    return Found("names of the folders", [], mentions, [])


def _by_pattern(photographs: Sequence[str], wanted: Wanted) -> Found:
    """Reads classes out of names; ``{}`` stands for anything but a slash."""
    pattern = wanted.pattern
    if pattern.count("{class}") != 1:
        raise UserError(
            f"expected a pattern with one {{class}}, found {pattern!r}: write for example"
            " '{class}_{}.jpg'"
        )
    # A class is as short as possible, so that Cat_12_3.jpg is a Cat.
    parts = (re.escape(part) for part in re.split(r"(?:\{class\}|\{\})", pattern))
    marks = re.findall(r"\{class\}|\{\}", pattern)
    regex = next(parts)
    for mark, part in zip(marks, parts, strict=True):
        regex += ("(?P<name>[^/]+?)" if mark == "{class}" else "[^/]*?") + part
    if not re.search(r"\.\w+$", pattern):
        regex += r"\.\w+"
    mentions = []
    for below in photographs:
        name = below if "/" in pattern else below.rpartition("/")[2]
        if match := re.fullmatch(regex, name, re.IGNORECASE):
            mentions.append(Mention(below, tuple(split_cell(match["name"], wanted.classes)), below))
    if not mentions:
        raise UserError(
            f"expected photographs named like {pattern!r}, found none among {len(photographs)}"
            f" ({first(photographs, 3)}): correct the pattern"
        )
    return Found(f"names of the photographs, {pattern!r}", [], mentions, [])
