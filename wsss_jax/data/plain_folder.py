"""Folders of photographs that have no lists."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from wsss_jax.data.formats.id_lists import IMAGE_FOLDER
from wsss_jax.data.images import SUFFIXES
from wsss_jax.errors import first
from wsss_jax.files import START

PREPARED = "prepared.json"
"""The record of a folder that ``wsss_jax.prepare`` has written."""

PREPARING = ".preparing.json"
"""The record of a folder that it has begun to write."""

PREDICTED = ("predict.json", "segment.json")
"""The records of a folder that ``wsss_jax.predict`` has written, today's and the former one."""

_HIDDEN = (".", "~$")  # Excel keeps the second kind beside a table that is open
_MASKS = ("SegmentationClass", "SegmentationClassAug")
# Folders of VOC that hold no photographs.
_OTHERS = ("Annotations", "ImageSets", *_MASKS)
_OF_PREDICT = ("masks", "overlays", "maps", "scores", "scores.json", "polygons.json")


def has_images(folder: Path) -> bool:
    """Returns whether there is an image in a folder or below."""
    return next(_files(folder), None) is not None


def ids_below(folder: Path) -> list[str]:
    """Returns the ids of the images in a folder and below, sorted: paths without suffix.

    Hidden files and folders are left out, and so are VOC's folders of masks and annotations.
    """
    return sorted(
        os.path.splitext(path.relative_to(folder).as_posix())[0] for path in _files(folder)
    )


def walk(
    folder: Path, leave_out: Iterable[Path] = (), results: list[Path] | None = None
) -> Iterator[Path]:
    """Yields the files of a folder and below in order, except for hidden ones.

    Links to folders are followed, but no folder is searched twice.

    Args:
      folder: the folder.
      leave_out: folders that are not searched.
      results: gets what commands of this program have written below the folder, such as masks,
        overlays and reports, which is then not searched either; None searches it.
    """
    seen = {path.resolve() for path in leave_out} | {(folder / "__MACOSX").resolve()}
    seen.add(folder.resolve())
    for parent, folders, names in os.walk(folder, followlinks=True):
        made = set() if results is None else _results(Path(parent), folders, names)
        if results is not None:
            results += (Path(parent) / name for name in sorted(made))
        new: list[str] = []
        for name in sorted(set(folders) - made):
            place = (Path(parent) / name).resolve()
            if not name.startswith(_HIDDEN) and place not in seen:
                seen.add(place)
                new.append(name)
        folders[:] = new
        found = sorted(set(names) - made)
        yield from (Path(parent) / name for name in found if not name.startswith(_HIDDEN))


def told_results(results: Sequence[Path], folder: Path) -> str:
    """Returns a sentence on what `walk` has left out below `folder`, or "" if there is nothing."""
    if not results:
        return ""
    shown = [path.relative_to(folder).as_posix() for path in results]
    return f"results of this program are no photographs and are left out: {first(shown)}"


def _results(parent: Path, folders: Sequence[str], names: Sequence[str]) -> set[str]:
    """Returns the files and folders in `parent` that this program has written."""
    records = (START, PREPARED, PREPARING)
    made = {n for n in folders if any((parent / n / one).is_file() for one in records)}
    made |= {f"{name}.png" for name in ("report", "compare") if f"{name}.html" in names}
    if not set(PREDICTED).isdisjoint(names):
        made |= set(_OF_PREDICT)
    if IMAGE_FOLDER in folders:
        made |= set(_MASKS)
    return made.intersection((*folders, *names))


def _files(folder: Path) -> Iterator[Path]:
    for path in walk(folder, results=[]):
        others = set(path.relative_to(folder).parts[:-1]).intersection(_OTHERS)
        if not others and path.suffix.lower() in SUFFIXES:
            yield path
