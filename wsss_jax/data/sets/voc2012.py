"""PASCAL VOC 2012, or any folder laid out like it, with image-level labels."""

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from wsss_jax.data.images import decode_image, decode_mask, encode_mask
from wsss_jax.data.labels import first, mask_label, read_annotations, read_label_file, select
from wsss_jax.data.prepared import RecordBuilder
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.data.source import Record
from wsss_jax.data.voc_folder import Listing, list_split
from wsss_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voc2012(DataSettings):
    """PASCAL VOC 2012, or any folder laid out like it.

    A split is a list in ImageSets/Segmentation. The split `test` needs neither masks nor labels;
    images without a label get zeros.

    Attributes:
      root: the folder VOC2012, the folder VOCdevkit that contains it, the parent of VOCdevkit, or
        any folder with JPEGImages.
      labels: a file of image-level labels (see `wsss_jax.data.labels`), ``xml`` or ``masks``; ""
        takes the XML annotations if there are any, and the masks otherwise.
      masks: a folder of the devkit, or ``none`` for no masks; "" takes each mask from
        SegmentationClassAug or, if it is not there, from SegmentationClass. ``optional`` does the
        same, but a split in which masks are missing has no masks instead of being refused.
      classes: a text file with the names of the foreground classes, one per line; "" means VOC's
        twenty.
    """

    location: ClassVar[frozenset[str]] = DataSettings.location | {"root", "labels", "classes"}

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

    def builder(self, split: str) -> "Voc2012Wsss":
        """Returns the builder of `split` from the folder's lists alone; see `DataSettings`."""
        listing = list_split(self.root, split, self.labels, self.masks, self.classes)
        return Voc2012Wsss(self.prepared_root, listing)


class Voc2012Wsss(RecordBuilder, skip_registration=True):
    """Stores images unchanged after decoding them as a check, and masks as PNGs of gray indices."""

    def __init__(self, folder: Path, listing: Listing):
        self._listing = listing
        self._labels: Float[np.ndarray, "n c"] | None = None
        self._broken: dict[str, UserError] = {}
        super().__init__(
            folder=folder,
            split=listing.split,
            fingerprint=listing.fingerprint,
            ids=listing.ids,
            classes=listing.classes,
            masks=listing.masks is not None,
        )

    def records(self, positions: range) -> Iterator[Record]:
        """Yields the records at `positions`, and reports damaged files after the last one.

        Raises:
          UserError: some files are damaged; the first five are named.
        """
        if positions.start == 0:
            self._labels = _read_labels(self._listing)
        # Decoding releases Python's global lock, so threads use all processors.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for name, result in zip(
                self._listing.ids[positions.start : positions.stop],
                pool.map(self._record, positions),
                strict=True,
            ):
                if isinstance(result, UserError):
                    self._broken[name] = result
                elif not self._broken:
                    yield result
        if self._broken and positions.stop == len(self._listing.ids):
            error, *others = self._broken.values()
            names = list(self._broken)
            rest = f" (and {len(others)} more: {first(names[1:], 4)})" if others else ""
            raise UserError(f"{error}{rest}") from error

    def _record(self, position: int) -> Record | UserError:
        listing = self._listing
        label = None if self._labels is None else self._labels[position]
        mask = None
        path = listing.images[position]
        try:
            data = path.read_bytes()
            image = decode_image(data, str(path))
            if listing.masks is not None:
                path = listing.masks[position]
                mask = decode_mask(path.read_bytes(), str(path), len(listing.classes))
                _check_size(image, mask, path)
        except UserError as error:
            return error
        except OSError as error:
            return UserError(f"expected a readable file at {path}, found none ({error.strerror})")
        if label is None:
            assert mask is not None  # a listing has labels or masks
            label = mask_label(mask, len(listing.classes))
        return Record(
            id=listing.ids[position],
            image=data,
            size=(image.shape[0], image.shape[1]),
            label=label,
            segmentation=None if mask is None else encode_mask(mask, palette=False),
        )


def _check_size(image: np.ndarray, mask: np.ndarray, path: Path) -> None:
    if image.shape[:2] != mask.shape:
        height, width = image.shape[:2]
        raise UserError(
            f"expected a mask of the image's size, {width} x {height}, found"
            f" {mask.shape[1]} x {mask.shape[0]} in {path}: replace it; it belongs to another image"
            " or was resized"
        )


def _read_labels(listing: Listing) -> Float[np.ndarray, "n c"] | None:
    """Returns the labels of all ids, or None if they come from the masks."""
    if listing.labels is None and listing.masks is not None:
        return None
    if listing.labels is None:
        return np.zeros((len(listing.ids), len(listing.classes)), np.float32)
    if listing.labels.is_dir():
        labels = read_annotations(listing.labels, listing.ids, listing.classes)
    else:
        labels = read_label_file(listing.labels, listing.classes)
    if listing.split == "test":
        nothing = np.zeros(len(listing.classes), np.float32)
        labels = {name: labels.get(name, nothing) for name in listing.ids}
    selected = select(labels, listing.ids, listing.labels)
    empty = [name for name, label in zip(listing.ids, selected, strict=True) if not label.any()]
    if empty and listing.split != "test":
        print(
            f"note: {len(empty)} of {len(listing.ids)} images of {listing.split} have no class in"
            f" {listing.labels} ({first(empty)}), so they count as background only",
            file=sys.stderr,
        )
    return selected
