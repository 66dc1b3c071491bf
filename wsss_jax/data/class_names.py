"""The names of the foreground classes, either those of PASCAL VOC or those in a file."""

import re
import unicodedata
from collections import Counter
from pathlib import Path

from wsss_jax.data.formats.text import read_text
from wsss_jax.errors import UserError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
"""The foreground classes of PASCAL VOC in the order of the mask indices 1 to 20."""

_MOST = 254  # masks have 8 bits, where 0 is the background and 255 is ignored

# A line of CVAT's labelmap.txt: label:color_rgb:parts:actions.
_CVAT = re.compile(r"(.+?):(?:\d+,\d+,\d+)?:[^:]*:[^:]*")
_NUMBERED = re.compile(r"(\d{1,9})(\s*[:;,.]\s*|\s+)(\D.*)")
_NO_CLASS = ("ignore", "void", "unlabeled", "unlabelled")


def check_mask_classes(count: int) -> None:
    """Refuses more foreground classes than a mask can hold.

    Raises:
      UserError: `count` is above 254.
    """
    if count > _MOST:
        raise UserError(
            f"expected at most {_MOST} classes, because masks have 8 bits, found {count}: leave"
            " some out or merge them"
        )


def read_classes(value: str) -> tuple[str, ...]:
    """Returns the names of the foreground classes in the order of the mask indices from 1 on.

    The background may stand in the first line under any of its usual names, also behind labelme's
    ``__ignore__``. Lines may be numbered, with the background as 0, and CVAT's ``labelmap.txt``
    may be given as it is.

    Args:
      value: ``voc``, or the path of a text file with one name per line.

    Raises:
      UserError: there is no such file, or it does not have 1 to 254 different names, or the
        background in a line other than the first.
    """
    if value == "voc":
        return VOC_CLASSES
    path = Path(value).expanduser()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "No such file"
        raise UserError(
            f"expected class names in {path}, one per line, found {found}: check the path"
        )
    lines = [line.strip() for line in read_text(path, "class names").splitlines()]
    names = _without_colors([line for line in lines if line])
    names = _without_numbers(names, path)
    if names and fold(names[0]) == "ignore":
        names = names[1:]
    if names and is_background(names[0]):
        names = names[1:]
    _check_names(names, path)
    return tuple(names)


def is_background(name: str) -> bool:
    """Returns whether a name is one that programs of the field use for the background."""
    return fold(name) in ("background", "bg")


def fold(name: str) -> str:
    """Returns a name without what is often written differently: case, blanks, ``_`` and ``-``."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())


def _without_colors(lines: list[str]) -> list[str]:
    """Returns the names of CVAT's ``labelmap.txt``, or else the lines themselves."""
    found = [_CVAT.fullmatch(line) for line in lines if not line.startswith("#")]
    names = [match[1].strip() for match in found if match]
    return names if names and len(names) == len(found) else lines


def _without_numbers(names: list[str], path: Path) -> list[str]:
    """Returns names without the numbers before them, if all have one."""
    found = [_NUMBERED.fullmatch(name) for name in names]
    numbers = [int(match[1]) for match in found if match]
    if not names or len(numbers) < len(names) or len(set(numbers)) < len(numbers):
        return names
    plain = [match[3] for match in found if match]
    if len(set(plain)) < len(plain):
        return names  # such as 1 euro, 2 euro
    start = 0 if is_background(plain[0]) else 1
    if numbers != list(range(start, start + len(numbers))):
        if all(match[2].isspace() for match in found if match):
            return names  # such as 2 doors, 4 wheels
        raise UserError(
            f"expected the classes in {path} numbered from 1 on (0 is the background), found"
            f" {names[0]!r} in the first line and {names[-1]!r} in the last: order them by mask"
            " index, or leave the numbers out"
        )
    return plain


def _check_names(names: list[str], path: Path) -> None:
    for name in names:
        if fold(name) == "background":
            raise UserError(
                f"expected the background in the first line of {path} or not at all, found"
                f" {name!r} behind it: its mask index is 0; order the names by mask index"
            )
        if fold(name) in _NO_CLASS:
            raise UserError(
                f"expected classes in {path}, found {name!r}, which is none: remove the line;"
                " pixels of value 255 are ignored anyway"
            )
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated or not 1 <= len(names) <= _MOST:
        found = f"{repeated[0]!r} more than once" if repeated else f"{len(names)} names"
        raise UserError(
            f"expected 1 to {_MOST} different class names in {path}, one per line, found {found}:"
            " correct the file"
        )
