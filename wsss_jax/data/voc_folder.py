"""Finds the lists of a VOC2012 folder and the files that belong to their ids."""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import UInt8

from wsss_jax.data.class_names import read_classes
from wsss_jax.data.columns import Names, Positions
from wsss_jax.data.labels import first
from wsss_jax.errors import UserError

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")

# SBD's masks include those of VOC's own images, so often only the first folder exists.
_MASK_FOLDERS = ("SegmentationClassAug", "SegmentationClass")

_NONE = 255  # stands for an id without a file
_BLOCK = 4096  # names of files that are looked up together


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a split, all of which exist.

    `masks` is None if the split has none. `labels` is a label file, the folder of XML annotations,
    or None if labels come from the masks. The labels and masks of VOC's test images are secret, so
    both may be None for the split `test`. `fingerprint` (hexadecimal) covers the ids, the classes,
    the label file, and the name, size and time of every other file.
    """

    split: str
    classes: tuple[str, ...]
    ids: Sequence[str]
    images: Sequence[Path]
    masks: Sequence[Path] | None
    labels: Path | None
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class _Found:
    """Where the file of each id is; `chosen` is its position in `places`, or `_NONE`.

    A place is a folder and a suffix, so that a file needs a byte of memory instead of a path.
    """

    ids: Sequence[str]
    places: Sequence[tuple[Path, str]]
    chosen: UInt8[np.ndarray, " n"]

    def missing(self) -> list[str]:
        """Returns the ids that have no file."""
        return [self.ids[int(position)] for position in np.flatnonzero(self.chosen == _NONE)]


class _Files(Sequence[Path]):
    """The files of all ids, none of which may be missing."""

    def __init__(self, found: _Found):
        self._found = found

    def __len__(self) -> int:
        return len(self._found.ids)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        folder, suffix = self._found.places[self._found.chosen[index]]
        return folder / (self._found.ids[index] + suffix)


def list_split(
    root: str, split: str, labels: str = "", masks: str = "", classes: str = ""
) -> Listing:
    """Finds the files of `split` below `root`; the other options as in `wsss_jax.data.voc`.

    Raises:
      UserError: there is no VOC2012 folder or no such list, a listed id has no image or mask or has
        two, or there are no labels or no class names.
    """
    devkit = find_devkit(root)
    names = read_classes(classes or "voc")
    lists = devkit / "ImageSets" / "Segmentation"
    ids = _read_list(lists, split)
    positions = Positions(ids)
    if repeated := dict.fromkeys(ids[int(position)] for position in positions.repeated()):
        raise _wrong_ids(lists / f"{split}.txt", f"{first([*repeated])} more than once")
    digest = hashlib.sha256(f"[{json.dumps(split)}, [".encode())
    for position, name in enumerate(ids):
        digest.update(f"{', ' if position else ''}{json.dumps(name)}".encode())
    digest.update(f"], {json.dumps(names)}]".encode())
    folder = _Folder(devkit, ids, positions, digest)
    images = folder.find(("JPEGImages",), _IMAGE_SUFFIXES)
    if lacking := images.missing():
        place = devkit / "JPEGImages"
        raise _lacking("an image", split, ids, lacking, place, "add them or shorten the list")
    mask_files = None if masks == "none" else _find_masks(folder, split, masks)
    source = _choose_labels(folder, split, labels, mask_files is not None)
    return Listing(split, names, ids, _Files(images), mask_files, source, digest.hexdigest())


def find_devkit(root: str) -> Path:
    """Finds the VOC2012 folder: `root` itself, or VOC2012 in it, or VOCdevkit/VOC2012 in it.

    Raises:
      UserError: there is none.
    """
    if not root:
        raise UserError(
            "expected the folder of PASCAL VOC 2012, found an empty data.root: set it, e.g."
            " --config.data.root=/data/VOCdevkit"
        )
    folder = Path(root).expanduser()
    for candidate in (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012"):
        if (candidate / "JPEGImages").is_dir():
            return candidate
    found = "a folder without it" if folder.is_dir() else "no such folder"
    raise UserError(
        f"expected VOC2012/JPEGImages at {folder}, found {found}: set data.root to VOCdevkit, its"
        " parent or VOC2012"
    )


def _read_list(folder: Path, split: str) -> Names:
    path = folder / f"{split}.txt"
    if not path.is_file():
        others = ", ".join(sorted(other.stem for other in folder.glob("*.txt"))) or "no list"
        advice = "set the stage's split to one of them"
        if split == "train_aug":
            advice = (
                "train_aug is VOC's train with the images of the Semantic Boundaries Dataset (SBD,"
                " Hariharan et al. 2011; 10,582 ids); get that list with its masks"
                " (SegmentationClassAug), or use train"
            )
        raise UserError(f"expected the list {path}, found {others}: {advice}")
    try:
        with path.open(encoding="utf-8-sig") as file:
            ids = Names.of(_id(line) for text in file for line in text.splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise UserError(f"expected one id per line in {path}, found no text: replace it") from error
    if not ids:
        raise _wrong_ids(path, "none")
    return ids


def _id(line: str) -> str:
    # Some lists name files instead: "/JPEGImages/ID.jpg /SegmentationClassAug/ID.png".
    word = line.split()[0]
    return Path(word).stem if "/" in word else word


def _wrong_ids(path: Path, found: str) -> UserError:
    return UserError(f"expected distinct ids in {path}, found {found}: correct the list")


@dataclasses.dataclass(frozen=True)
class _Folder:
    """A VOC2012 folder, the ids of a split, and the digest of what was found for them."""

    devkit: Path
    ids: Sequence[str]
    positions: Positions
    digest: Any

    def find(self, folders: Sequence[str], suffixes: Sequence[str]) -> _Found:
        """Finds the file of each id in the first of `folders` that has it, and digests its state.

        The digest covers the name, size and time of each file.

        Raises:
          UserError: a folder has two files for one id.
        """
        there = [self._suffixes_there(folder, suffixes) for folder in folders]
        chosen = np.full(len(self.ids), _NONE, np.uint8)
        for position, name in enumerate(self.ids):
            for number, folder in enumerate(folders):
                found = [i for i in range(len(suffixes)) if there[number][position] >> i & 1]
                names = [name + suffixes[i] for i in found]
                if len(names) > 1:
                    raise UserError(
                        f"expected one file for {name} in {self.devkit / folder}, found"
                        f" {' and '.join(names)}: keep one"
                    )
                if not names:
                    continue
                try:
                    status = os.stat(self.devkit / folder / names[0])
                except OSError:  # a broken link
                    continue
                chosen[position] = number * len(suffixes) + found[0]
                state = f"{folder}/{names[0]} {status.st_size} {status.st_mtime_ns}\n"
                self.digest.update(state.encode())
                break
        places = [(self.devkit / folder, suffix) for folder in folders for suffix in suffixes]
        return _Found(self.ids, places, chosen)

    def _suffixes_there(self, folder: str, suffixes: Sequence[str]) -> UInt8[np.ndarray, " n"]:
        """Returns a bit mask for each id of the suffixes with which `folder` has it."""
        there = np.zeros(len(self.ids), np.uint8)
        if (self.devkit / folder).is_dir():
            with os.scandir(self.devkit / folder) as entries:
                while block := [entry.name for entry in itertools.islice(entries, _BLOCK)]:
                    for bit, suffix in enumerate(suffixes):
                        named = (name for name in block if name.endswith(suffix))
                        stems = (os.fsencode(name.removesuffix(suffix)) for name in named)
                        there[self.positions.find(stems)] |= 1 << bit
        return there


def _find_masks(folder: _Folder, split: str, masks: str) -> Sequence[Path] | None:
    folders = (masks,) if masks not in ("", "optional") else _MASK_FOLDERS
    found = folder.find(folders, (".png", ".PNG"))
    lacking = found.missing()
    if not lacking:
        return _Files(found)
    if split == "test" or masks == "optional":
        return None
    place = folder.devkit / " or ".join(folders)
    advice = "add them, shorten the list, or set data.masks=optional to use no masks if some lack"
    raise _lacking("a mask", split, folder.ids, lacking, place, advice)


def _choose_labels(folder: _Folder, split: str, labels: str, has_masks: bool) -> Path | None:
    if labels not in ("", "xml", "masks"):
        path = Path(labels).expanduser()
        if not path.is_file():
            raise UserError(
                f"expected a file of labels at {path}, found no such file: set data.labels to a"
                " label file (cls_labels.npy, .npz or .csv)"
            )
        folder.digest.update(b"labels" + path.read_bytes())
        return path
    annotations = folder.devkit / "Annotations"
    if labels != "masks":
        lacking = folder.find((annotations.name,), (".xml",)).missing()
        if labels or len(lacking) < len(folder.ids):
            return annotations
    if not has_masks and split != "test":
        raise UserError(
            f"expected labels for {split}, found neither XML in {annotations} nor masks: set"
            " data.labels to a label file (cls_labels.npy, .npz or .csv)"
        )
    return None


def _lacking(
    what: str, split: str, ids: Sequence[str], names: Sequence[str], place: Path, advice: str
) -> UserError:
    return UserError(
        f"expected {what} for each of the {len(ids)} ids of {split}.txt, found none for"
        f" {len(names)} ({first(names)}) in {place}: {advice}"
    )
