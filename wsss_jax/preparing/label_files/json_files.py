"""Reads labels of JSON files: COCO, labelme, Label Studio, and plain lists and dictionaries."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss_jax.data.class_spelling import split_cell
from wsss_jax.data.formats.text import read_text
from wsss_jax.errors import UserError
from wsss_jax.preparing.label_files import Mention

_IMAGE_KEYS = (
    *("image", "file_name", "filename", "file", "image_path", "imagePath", "path", "image_id"),
    *("id", "name", "img", "photo"),
)
_CLASS_KEYS = ("labels", "label", "classes", "class", "categories", "category", "tags", "tag")
_STUDIO_VALUES = (
    *("choices", "rectanglelabels", "polygonlabels", "brushlabels", "keypointlabels"),
    *("ellipselabels", "labels", "taxonomy"),
)


def read_json_file(path: Path) -> Any:
    """Reads a JSON file, or one with a value per line.

    Raises:
      UserError: it cannot be read.
    """
    text = read_text(path, "labels in JSON").removeprefix("\ufeff")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            lines = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            lines = []
        if len(lines) < 2:
            raise UserError(
                f"expected labels as JSON in {path}, found something else ({error}): export them"
                " again"
            ) from error
        return lines


def json_kind(content: Any) -> str:
    """Returns the program whose export this is, ``plain`` or, if it has no labels, ""."""
    if isinstance(content, dict):
        if isinstance(content.get("images"), list) and "annotations" in content:
            return "COCO"
        if isinstance(content.get("shapes"), list) and "imagePath" in content:
            return "labelme"
        values = list(content.values())
        names = bool(values) and all(isinstance(v, str | list | dict) for v in values)
        return "plain" if names and all(map(_are_names, values)) else ""
    if isinstance(content, list) and content and all(isinstance(one, dict) for one in content):
        if any("annotations" in one and "data" in one for one in content):
            return "Label Studio"
        if any(_key(one, _IMAGE_KEYS) for one in content) and any(
            _key(one, (*_CLASS_KEYS, "choice")) for one in content
        ):
            return "plain"
    return ""


def read_json_labels(
    path: Path, content: Any, classes: Sequence[str] = (), folder: str = ""
) -> Iterator[Mention]:
    """Yields the labels of an export; see `json_kind`.

    Args:
      path: the file.
      content: what is in it.
      classes: the names of the classes, if they are given.
      folder: the folder of the file below the source.

    Raises:
      UserError: something that the format needs is missing.
    """
    readers = {
        "COCO": _coco,
        "labelme": _labelme,
        "Label Studio": _label_studio,
        "plain": _plain,
    }
    try:
        for image, names in readers[json_kind(content)](content, classes):
            where = f"{image} in {path.name}"
            if json_kind(content) == "labelme":
                # Files that were renamed often keep their old names inside.
                yield Mention(path.stem, tuple(names), path.name, folder, str(image))
            else:
                yield Mention(str(image), tuple(names), where, folder)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise UserError(
            f"expected labels of {json_kind(content)} in {path}, found an entry of another form"
            f" ({type(error).__name__}: {error}): export them again"
        ) from error


Found = Iterator[tuple[str, list[str]]]


def _coco(content: Mapping[str, Any], classes: Sequence[str]) -> Found:
    del classes
    names = {one["id"]: str(one["name"]) for one in content.get("categories", ())}
    by_image: dict[Any, list[str]] = defaultdict(list)
    for one in content["annotations"]:
        by_image[one["image_id"]].append(names[one["category_id"]])
    for image in content["images"]:
        yield image["file_name"], list(dict.fromkeys(by_image[image["id"]]))


def _labelme(content: Mapping[str, Any], classes: Sequence[str]) -> Found:
    names = [shape["label"] for shape in content["shapes"]]
    flags = [name for name, yes in (content.get("flags") or {}).items() if yes is True]
    yield content["imagePath"], _split([*names, *flags], classes)


def _label_studio(content: Sequence[Any], classes: Sequence[str]) -> Found:
    for task in content:
        data = task["data"]
        texts = (key for key, value in data.items() if isinstance(value, str))
        image = _key(data, _IMAGE_KEYS) or next(texts, None)
        if image is None:
            raise ValueError(f"no image in the data of task {task.get('id')}")
        names: list[str] = []
        done = [one for one in task["annotations"] if not one.get("was_cancelled")]
        for result in (one for annotation in done for one in annotation["result"]):
            value = result.get("value", {})
            for key in _STUDIO_VALUES:
                for name in value.get(key, ()):
                    names.append(name[-1] if isinstance(name, list) else name)
        # An image that nobody has annotated has no label, which is not the label of nothing.
        if done:
            upload = re.sub(r".*/", "", str(task.get("file_upload") or ""))
            yield str(data[image]) or upload, _split(names, classes)


def _plain(content: Any, classes: Sequence[str]) -> Found:
    if isinstance(content, dict):
        for image, names in content.items():
            yield image, _split(_names(names), classes)
        return
    for one in content:
        image = _key(one, _IMAGE_KEYS)
        found = [_names(one[key]) for key in (*_CLASS_KEYS, "choice") if key in one]
        yield one[image], _split([name for names in found for name in names], classes)


def _are_names(value: Any) -> bool:
    try:
        _names(value)
    except (TypeError, RecursionError):
        return False
    return True


def _names(value: Any) -> list[str]:
    """Returns the names in a text, a list, or a dictionary from a name to yes or no."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        if "choices" in value:
            return _names(value["choices"])
        if not all(flag in (0, 1) for flag in value.values()):
            raise TypeError("expected 0 or 1 for each class")
        return [name for name, flag in value.items() if flag]
    if isinstance(value, list):
        return [name for one in value for name in _names(_named(one))]
    raise TypeError(f"expected names of classes, found {value!r}")


def _named(one: Any) -> Any:
    """Returns the label of a box or region in a list, or else the entry itself."""
    key = _key(one, (*_STUDIO_VALUES, *_CLASS_KEYS, "name")) if isinstance(one, dict) else ""
    return one[key] if key else one


def _split(names: Sequence[str], classes: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(part for name in names for part in split_cell(str(name), classes)))


def _key(one: Mapping[str, Any], keys: Sequence[str]) -> str:
    return next((key for key in keys if key in one), "")
