"""Reads labels of XML files: PASCAL VOC, with a file per image, and CVAT, with one for all."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from wsss_jax.data.labels import parse_xml
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes
from wsss_jax.preparing.label_files import Mention

_MOST = 1 << 29  # bytes
_KINDS = {"annotation": "PASCAL VOC", "annotations": "CVAT"}


def read_xml_file(path: Path) -> ElementTree.Element:
    """Reads an XML file.

    Raises:
      UserError: it cannot be read.
    """
    data = read_bytes(path, _MOST)
    try:
        return parse_xml(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(
            f"expected labels as XML in {path}, found something else ({error}): export them again"
        ) from error


def xml_kind(root: ElementTree.Element) -> str:
    """Returns the program whose export this is, or "" if it has no labels."""
    return _KINDS.get(root.tag, "")


def read_xml_labels(path: Path, root: ElementTree.Element, folder: str = "") -> Iterator[Mention]:
    """Yields the labels of an export; see `xml_kind`.

    Args:
      path: the file.
      root: its content.
      folder: the folder of the file below the source.

    Raises:
      UserError: an object has no name.
    """
    if root.tag == "annotation":
        # Files that were renamed often keep their old names inside.
        image, other = path.stem, (root.findtext("filename") or "").strip()
        names = [(one.findtext("name") or "").strip() for one in root.findall("object")]
        if "" in names:
            raise UserError(
                f"expected a name in every object of {path}, found none in object"
                f" {names.index('') + 1}: complete the annotation"
            )
        yield Mention(image, tuple(dict.fromkeys(names)), path.name, folder, other)
        return
    for image in root.findall("image"):
        names = [one.get("label", "").strip() for one in image if one.get("label") is not None]
        name = image.get("name", "")
        yield Mention(name, tuple(dict.fromkeys(names)), f"{name} in {path.name}", folder)
