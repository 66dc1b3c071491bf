"""Finds the lists of a VOC2012 folder and the files that belong to their ids."""

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from wsss_jax.data.class_names import read_classes
from wsss_jax.data.labels import first
from wsss_jax.errors import UserError

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")

# SBD's masks include those of VOC's own images, so often only the first folder exists.
_MASK_FOLDERS = ("SegmentationClassAug", "SegmentationClass")


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
    ids: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[Path, ...] | None
    labels: Path | None
    fingerprint: str


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
    ids = _read_list(devkit / "ImageSets" / "Segmentation", split)
    digest = hashlib.sha256(json.dumps([split, ids, names]).encode())
    images = _find(devkit, ("JPEGImages",), ids, _IMAGE_SUFFIXES, digest)
    if len(images) < len(ids):
        folder = devkit / "JPEGImages"
        raise _lacking("an image", split, ids, images, folder, "add them or shorten the list")
    mask_files = None if masks == "none" else _find_masks(devkit, split, ids, masks, digest)
    source = _choose_labels(devkit, split, ids, labels, mask_files is not None, digest)
    files = tuple(images.values())
    return Listing(split, names, tuple(ids), files, mask_files, source, digest.hexdigest())


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


def _read_list(folder: Path, split: str) -> list[str]:
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
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"expected one id per line in {path}, found no text: replace it") from error
    # Some lists name files instead: "/JPEGImages/ID.jpg /SegmentationClassAug/ID.png".
    words = [line.split()[0] for line in lines if line.strip()]
    ids = [Path(word).stem if "/" in word else word for word in words]
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated or not ids:
        found = f"{first(repeated)} more than once" if repeated else "none"
        raise UserError(f"expected distinct ids in {path}, found {found}: correct the list")
    return ids


def _find_masks(
    devkit: Path, split: str, ids: Sequence[str], masks: str, digest: Any
) -> tuple[Path, ...] | None:
    folders = (masks,) if masks not in ("", "optional") else _MASK_FOLDERS
    found = _find(devkit, folders, ids, (".png", ".PNG"), digest)
    if len(found) == len(ids):
        return tuple(found.values())
    if split == "test" or masks == "optional":
        return None
    advice = "add them, shorten the list, or set data.masks=optional to use no masks if some lack"
    raise _lacking("a mask", split, ids, found, devkit / " or ".join(folders), advice)


def _choose_labels(
    devkit: Path, split: str, ids: Sequence[str], labels: str, has_masks: bool, digest: Any
) -> Path | None:
    if labels not in ("", "xml", "masks"):
        path = Path(labels).expanduser()
        if not path.is_file():
            raise UserError(
                f"expected a file of labels at {path}, found no such file: set data.labels to a"
                " label file (cls_labels.npy, .npz or .csv)"
            )
        digest.update(b"labels" + path.read_bytes())
        return path
    annotations = devkit / "Annotations"
    if labels != "masks" and (_find(devkit, (annotations.name,), ids, (".xml",), digest) or labels):
        return annotations
    if not has_masks and split != "test":
        raise UserError(
            f"expected labels for {split}, found neither XML in {annotations} nor masks: set"
            " data.labels to a label file (cls_labels.npy, .npz or .csv)"
        )
    return None


def _find(
    devkit: Path,
    folders: Sequence[str],
    ids: Sequence[str],
    suffixes: Sequence[str],
    digest: Any,
) -> dict[str, Path]:
    """Finds the file of each id in the first of `folders` that has it, and digests its state.

    The digest covers the name, size and time of each file.

    Raises:
      UserError: a folder has two files for one id.
    """
    found = {}
    there = {folder: _names(devkit / folder) for folder in folders}
    for name in ids:
        for folder in folders:
            candidates = [name + suffix for suffix in suffixes if name + suffix in there[folder]]
            if len(candidates) > 1:
                raise UserError(
                    f"expected one file for {name} in {devkit / folder}, found"
                    f" {' and '.join(candidates)}: keep one"
                )
            if not candidates:
                continue
            path = devkit / folder / candidates[0]
            try:
                status = path.stat()
            except OSError:  # a broken link
                continue
            found[name] = path
            digest.update(f"{folder}/{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
            break
    return found


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


def _lacking(
    what: str, split: str, ids: Sequence[str], found: Collection[str], place: Path, advice: str
) -> UserError:
    names = [name for name in ids if name not in found]
    return UserError(
        f"expected {what} for each of the {len(ids)} ids of {split}.txt, found none for"
        f" {len(names)} ({first(names)}) in {place}: {advice}"
    )
