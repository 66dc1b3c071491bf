"""Lists of images, one per line, by id or by file.

A line is one of these, where blanks may be part of a name:

- an id: the path of an image below ``JPEGImages``, without suffix;
- an image, such as ``a.jpg`` or ``/JPEGImages/a.jpg``;
- an image and its mask, such as ``/JPEGImages/a.jpg /SegmentationClassAug/a.png``;
- an id with a flag of -1, 0 or 1, as in VOC's lists of classes.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from wsss_jax.data.formats.text import read_text
from wsss_jax.data.images import SUFFIXES
from wsss_jax.errors import UserError

IMAGE_FOLDER = "JPEGImages"

_SUFFIX = "|".join(suffix.removeprefix(".") for suffix in SUFFIXES)
_PAIR = re.compile(rf"(.+?\.(?:{_SUFFIX}))(?:\s*[,;]\s*|\s+)(\S.*\.(?:{_SUFFIX}))", re.IGNORECASE)
_LONGEST = 8192  # characters of a line, which has two paths of 4,096 at most
_LINE = re.compile(r"[^\r\n]+")
_BARE_PAIR = re.compile(r"(\S*/\S+)\s+(\S*/\S+)")
_FLAGGED = re.compile(r"(.*\S)\s+(?:-1|0|1)")


class Entry(NamedTuple):
    """An image of a list.

    Attributes:
      id: the path of the image below its folder, without suffix and with ``/`` between parts.
      masks: the folder that the line names for masks, or "" if it names none.
    """

    id: str
    masks: str


def entries(path: Path, is_there: Callable[[str], bool]) -> Iterator[Entry]:
    """Yields the images of a list, line by line.

    Args:
      path: the list.
      is_there: a function that tells whether there is a file of an id. It is called for lines that
        can be read in two ways: ``scan 1`` is the id ``scan 1`` if there is a file of that name,
        and the id ``scan`` with a flag otherwise.

    Raises:
      UserError: the file cannot be read or is not text, or a line is not one of the above.
    """
    text = read_text(path, "a list of ids")
    # All lines at once would take several times the memory of the file.
    for line in _LINE.finditer(text):
        if entry := line[0].strip():
            try:
                yield _entry(entry, is_there)
            except ValueError as error:
                number = text.count("\n", 0, line.start()) + 1
                raise UserError(f"line {number} of {path}: {error}") from error


def read_list(path: Path, is_there: Callable[[str], bool]) -> list[str]:
    """Reads the ids of a list; see `entries`.

    Raises:
      UserError: as in `entries`, or the list is empty or names an image twice.
    """
    ids = [entry.id for entry in entries(path, is_there)]
    if not ids:
        raise UserError(f"expected ids in {path}, found an empty file: give one id per line")
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"expected each id once in {path}, found {twice[0]} twice: remove one")
    return ids


def image_id(file: str) -> str:
    """Returns the id of an image file: its path below ``JPEGImages``, without suffix.

    Raises:
      ValueError: the path is empty or leads out of the folder.
    """
    below = file.replace("\\", "/").rpartition(f"{IMAGE_FOLDER}/")[2]
    parts = below.removeprefix("/").split("/")
    parts = parts[1:] if parts[0] == "." else parts
    stem, dot, suffix = parts[-1].rpartition(".")
    if stem and f"{dot}{suffix}".lower() in SUFFIXES:
        parts[-1] = stem
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(
            f"expected the name of an image, or its path in the folder of images, found {file!r}:"
            " correct it"
        )
    return "/".join(parts)


def _entry(text: str, is_there: Callable[[str], bool]) -> Entry:
    if len(text) > _LONGEST:
        raise ValueError(
            f"expected an id, or an image and its mask, found {len(text):,} characters: correct it"
        )
    # Where these do not hold, the patterns cannot match, but would try each position to the end.
    pair = _PAIR.fullmatch(text) if text.lower().endswith(SUFFIXES) else None
    if not pair and len(text.split(maxsplit=2)) == 2:
        pair = _BARE_PAIR.fullmatch(text)
    if pair:
        return _with_mask(*pair.groups())
    whole = image_id(text)
    flagged = _FLAGGED.fullmatch(text)
    if flagged and not is_there(whole):
        without = image_id(flagged[1])
        return Entry(without if is_there(without) else whole, "")
    return Entry(whole, "")


def _with_mask(image: str, mask: str) -> Entry:
    name = image_id(image)
    image, mask = image.replace("\\", "/"), mask.replace("\\", "/")
    before = image.rpartition(f"{IMAGE_FOLDER}/")[0] if f"{IMAGE_FOLDER}/" in image else ""
    mask = mask.removeprefix(before)
    stem = mask[: -len(".png")] if mask.lower().endswith(".png") else mask
    folder = stem.removesuffix(name)
    if folder == stem or (folder and not folder.endswith("/")) or not stem.endswith(name):
        raise ValueError(
            f"expected the mask of {image} as FOLDER/{name}.png, found {mask!r}: name the masks"
            " like their images"
        )
    return Entry(name, folder.strip("/"))
