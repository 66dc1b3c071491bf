"""Folders of photographs that have no lists."""

import os
from collections.abc import Iterator
from pathlib import Path

from wsss_jax.data.images import SUFFIXES

# Folders of VOC that hold no photographs.
_OTHERS = ("Annotations", "ImageSets", "SegmentationClass", "SegmentationClassAug")


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


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in _OTHERS)
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(parent) / name
