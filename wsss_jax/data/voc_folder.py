"""Finds the lists of a VOC2012 folder and the files that belong to their ids."""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Int16

from wsss_jax.data.class_names import read_classes
from wsss_jax.data.columns import Names, Positions
from wsss_jax.data.formats.id_lists import IMAGE_FOLDER, entries
from wsss_jax.data.formats.label_tables import table_classes
from wsss_jax.data.formats.table_rows import TABLES
from wsss_jax.data.images import SUFFIXES
from wsss_jax.data.labels import names_an_image
from wsss_jax.data.masks import check_foreground
from wsss_jax.data.plain_folder import PREPARED, has_images, ids_below
from wsss_jax.errors import UserError, first
from wsss_jax.files import read_bytes

# SBD's masks include those of VOC's own images, so often only the first folder exists.
_MASK_FOLDERS = ("SegmentationClassAug", "SegmentationClass")

_LABELS, _CLASSES = "labels.csv", "classes.txt"  # beside the record of ``wsss_jax.prepare``

_NONE = -1  # stands for an id without a file
_BLOCK = 4096  # names of files that are looked up together


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a split, all of which exist.

    `folder` has the images of all splits. `masks` is None if the split has none. `labels` is a
    label file, the folder of XML annotations, or None if labels come from the masks. The labels and
    masks of VOC's test images are secret, so both may be None for the split `test`. `fingerprint`
    (hexadecimal) covers the ids, the classes, the label file, and the name, size and time of every
    other file.
    """

    split: str
    classes: tuple[str, ...]
    folder: Path
    ids: Sequence[str]
    images: Sequence[Path]
    masks: Sequence[Path] | None
    labels: Path | None
    fingerprint: str

    def every(self) -> list[str]:
        """Returns the ids of all images of the folder, whatever lists they are in."""
        return ids_below(self.folder)


@dataclasses.dataclass(frozen=True)
class _Found:
    """Where the file of each id is; `chosen` is its position in `places`, or `_NONE`.

    A place is a folder and a suffix, so that a file needs a byte of memory instead of a path.
    """

    ids: Sequence[str]
    places: Sequence[tuple[Path, str]]
    chosen: Int16[np.ndarray, " n"]

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
    root: str,
    split: str,
    labels: str = "",
    masks: str = "",
    classes: str = "",
    foreground: int = 0,
) -> Listing:
    """Finds the files of `split` below `root`; the other options as in `wsss_jax.data.voc`.

    Raises:
      UserError: there is no VOC2012 folder or no such list, a listed id has no image or mask or has
        two, or there are no labels or no class names.
    """
    if not labels and not classes:
        labels, classes = _prepared(Path(root).expanduser())
    in_file = labels not in ("", "xml", "masks")
    devkit, images_in = find_devkit(root, plain=in_file)
    lists = devkit / "ImageSets" / "Segmentation"
    if in_file and split == "train" and not any(lists.glob("*.txt")):
        ids, named = Names.of(ids_below(devkit / images_in)), ""
    else:
        ids, named = _read_list(devkit, split)
    names = _classes(classes, Path(labels).expanduser() if in_file else None, ids)
    positions = Positions(ids)
    if repeated := dict.fromkeys(ids[int(position)] for position in positions.repeated()):
        raise _wrong_ids(lists / f"{split}.txt", f"{first([*repeated])} more than once")
    digest = hashlib.sha256(f"[{json.dumps(split)}, [".encode())
    for position, name in enumerate(ids):
        digest.update(f"{', ' if position else ''}{json.dumps(name)}".encode())
    digest.update(f"], {json.dumps(names)}]".encode())
    if foreground:
        check_foreground(foreground, len(names))
        digest.update(f"foreground {foreground}".encode())
    folder = _Folder(devkit, ids, positions, digest)
    images = folder.find((images_in,), SUFFIXES)
    if lacking := images.missing():
        place = devkit / images_in
        raise _lacking("an image", split, ids, lacking, place, "add them or shorten the list")
    mask_files = None if masks == "none" else _find_masks(folder, split, masks, named)
    source = _choose_labels(folder, split, labels, mask_files is not None)
    return Listing(
        split=split,
        classes=names,
        folder=devkit / images_in,
        ids=ids,
        images=_Files(images),
        masks=mask_files,
        labels=source,
        fingerprint=digest.hexdigest(),
    )


def _classes(classes: str, labels: Path | None, ids: Sequence[str]) -> tuple[str, ...]:
    if classes != "labels":
        return read_classes(classes or "voc")
    if labels is None or labels.suffix.lower() not in TABLES:
        raise UserError(
            f"expected a table ({', '.join(TABLES)}) in data.labels for data.classes=labels, found"
            f" {labels or 'no file'}: name a file of class names in data.classes"
        )
    return table_classes(labels, names_an_image(ids))


def find_devkit(root: str, plain: bool = False) -> tuple[Path, str]:
    """Finds the VOC2012 folder: `root` itself, or VOC2012 in it, or VOCdevkit/VOC2012 in it.

    Args:
      root: the folder of the settings.
      plain: whether `root` may also be a folder of photographs without VOC's folders.

    Returns:
      The folder, and the folder of its images inside of it, "" for the folder itself.

    Raises:
      UserError: there is none.
    """
    if not root:
        raise UserError(
            "expected the folder of a data set, found an empty data.root: set it, e.g."
            " --config.data.root=mine after `python -m wsss_jax.prepare`, or =/data/VOCdevkit"
        )
    folder = Path(root).expanduser()
    below = [folder / inner / f"VOC{year}" for year in (2012, 2007) for inner in ("", "VOCdevkit")]
    for candidate in (folder, *below):
        if (candidate / IMAGE_FOLDER).is_dir():
            return candidate, IMAGE_FOLDER
    if plain and folder.is_dir() and has_images(folder):
        return folder, ""
    found, advice = "no such folder", "check data.root"
    if folder.is_dir():
        found = "a folder of other files"
        advice = "set data.root to what `wsss_jax.prepare` wrote, or to VOCdevkit or VOC2012"
        if any(name.lower().endswith(SUFFIXES) for names in _names_in(folder) for name in names):
            found = "a folder of photographs alone"
            advice = (
                "make a data set of it with `python -m wsss_jax.prepare folder`, or set data.labels"
                " to a table of their classes"
            )
    raise UserError(f"expected a data set at {folder}, found {found}: {advice}")


def _prepared(folder: Path) -> tuple[str, str]:
    """Returns the label file and the class file of a prepared folder, or empty texts."""
    files = [folder / name for name in (_LABELS, _CLASSES, PREPARED)]
    return (str(files[0]), str(files[1])) if all(file.is_file() for file in files) else ("", "")


def _read_list(devkit: Path, split: str) -> tuple[Names, str]:
    """Returns the ids of a list and the folder of masks that it names, or ""."""
    folder = devkit / "ImageSets" / "Segmentation"
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
    folders: dict[str, str] = {}

    def names() -> Iterator[str]:
        for entry in entries(path, lambda name: _has_image(devkit / IMAGE_FOLDER, name)):
            if entry.masks:
                folders.setdefault(entry.masks, entry.id)
            yield entry.id

    ids = Names.of(names())
    if not ids:
        raise _wrong_ids(path, "none")
    if len(folders) > 1:
        found = " and ".join(f"{where} for {name}" for where, name in folders.items())
        raise UserError(
            f"expected one folder of masks in {path}, found {found}: put the masks into one folder"
        )
    return ids, next(iter(folders), "")


def _has_image(folder: Path, name: str) -> bool:
    """Returns whether `folder` has an image of this id, with a suffix in any case."""
    path = folder / name
    try:
        files = os.listdir(path.parent)
    except OSError:
        return False
    return any(
        file.startswith(path.name) and file[len(path.name) :].lower() in SUFFIXES for file in files
    )


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

        Args:
          folders: folders of the devkit.
          suffixes: the suffixes of files in lower case; those of files may have any case.

        Raises:
          UserError: a folder has two files for one id.
        """
        there = [self._suffixes_there(folder, suffixes) for folder in folders]
        by_folder = zip(folders, there, strict=True)
        places = [(folder, suffix) for folder, found in by_folder for suffix in found]
        chosen = np.full(len(self.ids), _NONE, np.int16)
        for position, name in enumerate(self.ids):
            start = 0
            for folder, by_suffix in zip(folders, there, strict=True):
                found = [i for i, has in enumerate(by_suffix.values(), start) if has[position]]
                start += len(by_suffix)
                names = [name + places[i][1] for i in found]
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
                chosen[position] = found[0]
                state = f"{folder}/{names[0]} {status.st_size} {status.st_mtime_ns}\n"
                self.digest.update(state.encode())
                break
        return _Found(self.ids, [(self.devkit / f, suffix) for f, suffix in places], chosen)

    def _suffixes_there(
        self, folder: str, suffixes: Sequence[str]
    ) -> dict[str, Bool[np.ndarray, " n"]]:
        """Returns which ids have a file in `folder`, for each suffix as the files write it."""
        there: dict[str, Bool[np.ndarray, " n"]] = {}
        for parent in self._parents:
            for block in _names_in(self.devkit / folder / parent):
                ids: dict[str, list[bytes]] = {}
                for name in block:
                    stem, suffix = os.path.splitext(name)
                    if suffix.lower() in suffixes:
                        ids.setdefault(suffix, []).append(os.fsencode(parent + stem))
                for suffix, found in ids.items():
                    has = there.setdefault(suffix, np.zeros(len(self.ids), bool))
                    has[self.positions.find(found)] = True
        order = sorted(there, key=lambda suffix: (suffixes.index(suffix.lower()), suffix))
        return {suffix: there[suffix] for suffix in order if there[suffix].any()}

    @functools.cached_property
    def _parents(self) -> list[str]:
        """The folders of the ids, each with a slash at its end; "" is the folder itself."""
        return sorted({name[: name.rfind("/") + 1] for name in self.ids})


def _names_in(folder: Path) -> Iterator[list[str]]:
    """Yields the names of the entries of a folder, many at a time; none if there is no folder."""
    if folder.is_dir():
        with os.scandir(folder) as found:
            while block := [entry.name for entry in itertools.islice(found, _BLOCK)]:
                yield block


def _find_masks(folder: _Folder, split: str, masks: str, named: str) -> Sequence[Path] | None:
    """Finds the masks in the folder of the settings or of the list, or in those of VOC and SBD."""
    if masks in ("", "optional"):
        usual = not named or named in _MASK_FOLDERS
        folders = tuple(dict.fromkeys(filter(None, (named, *(_MASK_FOLDERS if usual else ())))))
    else:
        folders = (masks,)
    found = folder.find(folders, (".png",))
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
                " label file (.csv, .tsv, .xlsx, .npy or .npz)"
            )
        folder.digest.update(b"labels" + read_bytes(path))
        return path
    annotations = folder.devkit / "Annotations"
    if labels != "masks":
        lacking = folder.find((annotations.name,), (".xml",)).missing()
        if labels or len(lacking) < len(folder.ids):
            return annotations
    if not has_masks and split != "test":
        raise UserError(
            f"expected labels for {split}, found neither XML in {annotations} nor masks: set"
            " data.labels to a label file (.csv, .tsv, .xlsx, .npy or .npz)"
        )
    return None


def _lacking(
    what: str, split: str, ids: Sequence[str], names: Sequence[str], place: Path, advice: str
) -> UserError:
    return UserError(
        f"expected {what} for each of the {len(ids)} ids of {split}.txt, found none for"
        f" {len(names)} ({first(names)}) in {place}: {advice}"
    )
