"""Finds the photograph that a label means, however the label spells it."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import unquote

from wsss_jax.data.images import SUFFIXES, UNREAD

# Label Studio puts eight hexadecimal digits before the names of uploaded files.
_UPLOADED = re.compile(r"(?:.*/)?[0-9a-f]{8}-(.+)")
_NUMBER = re.compile(r"(?:COCO_[a-z]+20\d\d_)?([0-9]{1,18})", re.ASCII)


class Matcher:
    """Finds photographs by path, name or number.

    Args:
      below: the paths of all photographs below the source.
    """

    def __init__(self, below: Iterable[str]):
        self._exact: dict[str, str] = {}
        self._paths: dict[str, list[str]] = defaultdict(list)
        self._names: dict[str, list[str]] = defaultdict(list)
        self._numbers: dict[int, list[str]] = defaultdict(list)
        self._known: dict[tuple[str, str], list[str]] = {}
        for path in below:
            self._exact[path] = path
            stem = _stem(path)
            self._exact.setdefault(stem, path)
            for key in dict.fromkeys((path.casefold(), stem.casefold())):
                self._paths[key].append(path)
                self._names[key.rpartition("/")[2]].append(path)
            if number := _NUMBER.fullmatch(stem.rpartition("/")[2]):
                self._numbers[int(number[1])].append(path)
        self.by_number: set[str] = set()
        """Texts that were understood as numbers, such as 7 for 0007.jpg."""

    def find(self, text: str, folder: str = "") -> list[str]:
        """Returns the photographs that `text` may mean; several if it is ambiguous.

        Args:
          text: a path, name or number, with or without folders and suffix.
          folder: the folder below the source to which it may be relative.
        """
        key = (text, folder)
        if key not in self._known:
            self._known[key] = self._find(text, folder)
        return self._known[key]

    def _find(self, text: str, folder: str) -> list[str]:
        text = text.strip().replace("\\", "/").removeprefix("./")
        if not text:
            return []
        # Label Studio names local files behind ?d=.
        text = text.rpartition("?d=")[2]
        forms = dict.fromkeys((text, unquote(text)))
        for form in forms:
            if found := self._by_path(form, folder):
                return found
        for form in forms:
            if (uploaded := _UPLOADED.fullmatch(form)) and (
                found := self._by_path(uploaded[1], folder)
            ):
                return found
        number = re.fullmatch(r"([0-9]{1,18})(\.0+)?", text, re.ASCII)
        if number and (found := self._numbers.get(int(number[1]), [])):
            self.by_number.add(text)
            return found
        return []

    def _by_path(self, text: str, folder: str) -> list[str]:
        texts = [text, _stem(text)] if _stem(text) != text else [text]
        for form in texts:
            for candidate in ([f"{folder}/{form}"] if folder else []) + [form]:
                if candidate in self._exact:
                    return [self._exact[candidate]]
            parts = [part for part in form.casefold().split("/") if part not in ("", ".")]
            if folder:
                parts = [*folder.casefold().split("/"), *parts]
            for start in range(len(parts)):
                if found := self._paths.get("/".join(parts[start:])):
                    return found
            if parts and (found := self._names.get(parts[-1])):
                inside = [p for p in found if p.casefold().endswith("/".join(parts[-2:]))]
                return inside if len(parts) > 1 and len(inside) == 1 else found
        return []


def same_file(one: str, other: str) -> bool:
    """Returns whether two paths or names can be those of the same file.

    They cannot if both have folders that differ (``x/1`` and ``y/1``, but not ``x/1`` and
    ``photos/x/1``), or suffixes of different kinds of images.
    """
    paths = [PurePosixPath(text.strip().replace("\\", "/").casefold()) for text in (one, other)]
    kinds = {path.suffix for path in paths if path.suffix in SUFFIXES}
    folders = [[part for part in path.parts[:-1] if part not in ("/", ".")] for path in paths]
    common = min(map(len, folders))
    ends = [parts[len(parts) - common :] for parts in folders]
    return ends[0] == ends[1] and len(kinds) < 2


def looks_like_a_photograph(text: str) -> bool:
    """Returns whether a text ends with a suffix of photographs."""
    return text.strip().lower().endswith((*SUFFIXES, *UNREAD))


def _stem(path: str) -> str:
    """Returns a path without a suffix of photographs, which may have been converted since."""
    suffix = PurePosixPath(path).suffix
    return path.removesuffix(suffix) if suffix.lower() in (*SUFFIXES, *UNREAD) else path
