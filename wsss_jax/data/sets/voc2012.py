"""PASCAL VOC 2012, or any folder laid out like it, with image-level labels."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from wsss_jax import console
from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.images import Photograph, decode_photograph
from wsss_jax.data.labels import (
    Label,
    mask_label,
    match,
    names_an_image,
    read_annotations,
    read_label_file,
    select,
)
from wsss_jax.data.masks import decode_mask, encode_mask
from wsss_jax.data.prepared import RecordBuilder, check_left_out
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.data.source import Record
from wsss_jax.data.voc_folder import Listing, list_split
from wsss_jax.errors import UserError, first
from wsss_jax.files import read_bytes
from wsss_jax.settings.limits import check_limits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voc2012(DataSettings):
    """PASCAL VOC 2012, or any folder laid out like it.

    A split is a list in ImageSets/Segmentation. The split `test` needs neither masks nor labels;
    images without a label get zeros. If neither `labels` nor `classes` is set, a folder that
    ``wsss_jax.prepare`` has written is read with its labels.csv and classes.txt.

    Attributes:
      root: the folder VOC2012, the folder VOCdevkit that contains it, the parent of VOCdevkit, or
        any folder with JPEGImages. With a file of labels it may be any folder of photographs and
        subfolders; if it has no lists, all of its photographs are the split train.
      labels: a file of image-level labels (see `wsss_jax.data.labels`), ``xml`` or ``masks``; ""
        takes the XML annotations if there are any, and the masks otherwise.
      masks: a folder of the devkit, or ``none`` for no masks; "" takes each mask from
        SegmentationClassAug or, if it is not there, from SegmentationClass. ``optional`` does the
        same, but a split in which masks are missing has no masks instead of being refused.
      classes: a text file with the names of the foreground classes, one per line; "" means VOC's
        twenty, and ``labels`` takes those that the table `labels` names.
      damaged_share: the share of a split's images that may be damaged, such as 0.01. They are left
        out and named in skipped.json beside the prepared records; if more are damaged, the split is
        refused.
      foreground: the value of masks that stands for the only class, such as 255; 0 means that masks
        have class indices, where 255 is ignored.
    """

    # The digests of the data cover `foreground` and `damaged_share` too: that of indices, and that
    # of the images that are there.
    location: ClassVar[frozenset[str]] = DataSettings.location | {
        *("root", "labels", "classes", "foreground", "damaged_share"),
    }

    published: ClassVar[Mapping[str, tuple[int, int]]] = {
        "train": (1464, 20),
        "train_aug": (10582, 20),
        "trainval": (2913, 20),
        "val": (1449, 20),
        "test": (1456, 20),
    }

    root: str = ""
    labels: str = ""
    masks: str = ""
    classes: str = ""
    damaged_share: float = 0.0
    foreground: int = 0

    def __post_init__(self) -> None:
        """Checks the share of damaged images.

        Raises:
          UserError: it is not from 0 to 1.
        """
        check_limits(self, damaged_share=(0, 1))

    def builder(self, split: str) -> "Voc2012Wsss":
        """Returns the builder of `split` from the folder's lists alone; see `DataSettings`."""
        relist = functools.partial(
            list_split, self.root, split, self.labels, self.masks, self.classes, self.foreground
        )
        return Voc2012Wsss(self.prepared_root, relist, self.foreground, self.damaged_share)


class Voc2012Wsss(RecordBuilder, skip_registration=True):
    """Stores images unchanged after decoding them as a check, and masks as PNGs of gray indices."""

    def __init__(
        self,
        folder: Path,
        relist: Callable[[], Listing],
        foreground: int = 0,
        damaged_share: float = 0.0,
    ):
        listing = relist()
        self._listing, self._relist, self._foreground = listing, relist, foreground
        self._labels: Float[np.ndarray, "n c"] | None = None
        super().__init__(
            folder=folder,
            split=listing.split,
            fingerprint=listing.fingerprint,
            ids=listing.ids,
            classes=listing.classes,
            masks=listing.masks is not None,
            damaged_share=damaged_share,
        )

    def records(self, positions: range) -> Iterator[Record]:
        """Yields the records at `positions`, and reports damaged files after the last one.

        Raises:
          UserError: more files are damaged than may be (the first five are named), or files have
            changed since they were listed.
        """
        if positions.start == 0:
            self._labels = _read_labels(self._listing)
            if self._labels is not None and self._listing.split != "test":
                _tell_classes(self._listing, self._labels)
            self._found = _Found(self._listing)
        # Decoding releases Python's global lock, so threads use all processors.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for name, result in zip(
                self._listing.ids[positions.start : positions.stop],
                pool.map(self._record, positions),
                strict=True,
            ):
                if isinstance(result, UserError):
                    self.left_out[name] = str(result)
                else:
                    record, photograph, in_mask = result
                    self._found.add(name, photograph, record["label"], in_mask)
                    if self.damaged_share or not self.left_out:
                        yield record
        if positions.stop < len(self._listing.ids):
            return
        if self.left_out:
            check_left_out(self.left_out, len(self._listing.ids), self.damaged_share)
        self._found.tell()
        # The name of the records' folder stands for the files as they were listed.
        if self._relist().fingerprint != self._listing.fingerprint:
            files = (*self._listing.images, *(self._listing.masks or ()))
            newest = max(files, key=lambda path: path.stat().st_mtime_ns)
            raise UserError(
                f"expected the files of {self._listing.split} to stay as they are while they are"
                f" prepared, found that some have changed (the newest one is {newest}): run the"
                " same command again"
            )

    def _record(self, position: int) -> tuple[Record, Photograph, Label | None] | UserError:
        """Returns a record, its photograph without pixels, and the classes of its mask."""
        listing = self._listing
        label = None if self._labels is None else self._labels[position]
        mask = in_mask = None
        path = listing.images[position]
        try:
            data = read_bytes(path)
            image = decode_photograph(data, str(path))
            size = image.pixels.shape[0], image.pixels.shape[1]
            if listing.masks is not None:
                path = listing.masks[position]
                content = read_bytes(path)
                mask = decode_mask(content, str(path), len(listing.classes), self._foreground)
                _check_size(image, mask, path)
                in_mask = mask_label(mask, len(listing.classes))
        except UserError as error:
            return error
        if label is None:
            assert in_mask is not None  # a listing has labels or masks
            label = in_mask
        record = Record(
            id=listing.ids[position],
            image=data,
            size=size,
            label=label,
            segmentation=None if mask is None else encode_mask(mask, palette=False),
        )
        return record, image._replace(pixels=image.pixels[:0]), in_mask


class _Found:
    """What the images of a split have that its user should know.

    Args:
      listing: the split.
    """

    def __init__(self, listing: Listing):
        self._listing = listing
        self._turned: list[str] = []
        self._same = True
        self._by_bits: dict[int, list[str]] = {}
        self._in_labels, self._in_masks = np.zeros((2, len(listing.classes)), np.float32)

    def add(self, name: str, image: Photograph, label: Label, in_mask: Label | None) -> None:
        """Counts an image, its label, and the classes of its mask if it has one."""
        if image.orientation > 1:
            self._turned.append(name)
        if image.bits > 8:
            self._by_bits.setdefault(image.bits, []).append(name)
        self._in_labels = np.maximum(self._in_labels, label)
        self._same = self._same and np.array_equal(self._in_labels, label)
        if in_mask is not None:
            self._in_masks = np.maximum(self._in_masks, in_mask)

    def tell(self) -> None:
        """Prints notes about images that were turned or scaled, and about absent classes.

        Raises:
          UserError: no image has a class, or no mask.
        """
        listing = self._listing
        if listing.split == "test":
            return self._tell_changes()
        if listing.masks is not None and not self._in_masks.any():
            raise UserError(
                f"expected masks of class indices 1 to {len(listing.classes)} for {listing.split},"
                f" found no pixel of a class in all {len(listing.ids)} masks ({listing.masks[0]},"
                " ...): 255 means ignored; if it marks the only class, set"
                " --config.data.foreground=255"
            )
        if not self._in_labels.any():
            raise _no_class(listing)
        self._tell_changes()
        absent = [
            name for name, there in zip(listing.classes, self._in_labels, strict=True) if not there
        ]
        if absent:
            console.note(f"no image of {listing.split} has {first(absent)}")
        if self._same and len(listing.ids) > 1:
            console.note(
                f"all images of {listing.split} have the same classes, so a classifier has nothing"
                " to tell apart: add images without these classes"
            )
        return None

    def _tell_changes(self) -> None:
        split = self._listing.split
        if self._turned:
            console.note(
                f"{len(self._turned)} images of {split} are turned as their EXIF orientation says"
                f" ({first(self._turned)}), so their masks must show them turned"
            )
        for bits, names in sorted(self._by_bits.items()):
            console.note(
                f"{len(names)} images of {split} have values of 16 bits and use {bits} of them"
                f" ({first(names)}); they are divided by {1 << (bits - 8)}"
            )


def _check_size(image: Photograph, mask: np.ndarray, path: Path) -> None:
    height, width = image.pixels.shape[:2]
    if (height, width) == mask.shape:
        return
    why = "replace it; it belongs to another image or was resized"
    if image.orientation > 1 and (width, height) == mask.shape:
        why = (
            f"turn the mask like its image, whose EXIF orientation ({image.orientation}) exchanges"
            " width and height"
        )
    raise UserError(
        f"expected a mask of the image's size, {width} x {height}, found"
        f" {mask.shape[1]} x {mask.shape[0]} in {path}: {why}"
    )


def _no_class(listing: Listing) -> UserError:
    return UserError(
        f"expected images with classes in {listing.split}, found none among {len(listing.ids)} in"
        f" {listing.labels or 'their masks'}: check the labels and the names of the classes"
    )


def _tell_classes(listing: Listing, labels: Float[np.ndarray, "n c"]) -> None:
    """Prints how many images have each class, where classes are those of the user."""
    if listing.classes == VOC_CLASSES:
        return
    counts = zip(listing.classes, labels.sum(0).astype(int), strict=True)
    shown = first([f"{name} ({count})" for name, count in counts], 20)
    console.note(f"{len(listing.ids)} images of {listing.split} by class: {shown}")


def _read_labels(listing: Listing) -> Float[np.ndarray, "n c"] | None:
    """Returns the labels of all ids, or None if they come from the masks."""
    if listing.labels is None and listing.masks is not None:
        return None
    if listing.labels is None:
        return np.zeros((len(listing.ids), len(listing.classes)), np.float32)
    if listing.labels.is_dir():
        labels = read_annotations(listing.labels, listing.ids, listing.classes)
    else:
        is_image = names_an_image(listing.ids)
        labels = read_label_file(listing.labels, listing.classes, is_image)
    if listing.split == "test":
        nothing = np.zeros(len(listing.classes), np.float32)
        found = match(labels, listing.ids, listing.labels, listing.every)
        labels = dict.fromkeys(listing.ids, nothing) | found
    selected = select(labels, listing.ids, listing.labels, listing.every)
    empty = [name for name, label in zip(listing.ids, selected, strict=True) if not label.any()]
    if len(empty) == len(listing.ids) and listing.split != "test":
        raise _no_class(listing)
    if empty and listing.split != "test":
        console.note(
            f"{len(empty)} of {len(listing.ids)} images of {listing.split} have no class in"
            f" {listing.labels} ({first(empty)}), so they count as background only"
        )
    return selected
