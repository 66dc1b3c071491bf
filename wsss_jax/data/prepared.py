"""Writes data sets once with TensorFlow Datasets (without TensorFlow), for random access.

A builder is a subclass of `RecordBuilder`. `prepare` writes its records as array_record shards to
``<folder>/<builder>/<split>-<fingerprint>/``, unless they exist, and opens them.

These folders are a cache, and one that is not as it was written is prepared again; see
`wsss_jax.data.prepared_source`.

A data set may allow some of its images to be damaged. They are left out, and ``skipped.json`` has
their ids with what is wrong with them.
"""

import abc
import contextlib
import errno
import hashlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from filelock import FileLock
from jaxtyping import Int32

from wsss_jax import console
from wsss_jax.data.class_names import check_mask_classes
from wsss_jax.data.images import how_decoded
from wsss_jax.data.prepared_source import (
    IDS,
    SIZES,
    SKIPPED,
    SUMS,
    PreparedSource,
    damage,
    damaged,
    quiet,
    write_sums,
)
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError, first, no_space
from wsss_jax.files import write_json
from wsss_jax.progress import Progress

# TFDS keeps the records of a shard in memory while it writes them. Every shard that is read stays
# open, and systems mostly allow 1,024 open files.
_RECORDS_PER_SHARD, _MOST_SHARDS = 512, 512

# They are recognized by their text, because array_record wraps system errors in RuntimeErrors.
_FIXABLE = {
    errno.EACCES: "no permission to write there",
    errno.EROFS: "a read-only disk",
}


class RecordBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """A TFDS builder of one split of a data set.

    It writes shard by shard, because TFDS's shuffling builder needs TensorFlow for more than 1 GB
    of records (such as VOC's train_aug).

    Args:
      folder: the folder for prepared data sets.
      split: the name of the split.
      fingerprint: the hexadecimal digest of everything from which the records are made.
      ids: the ids of the records, in order.
      classes: the names of the C foreground classes.
      masks: whether the records have masks.
      damaged_share: the share of the images that may be damaged and left out.

    Attributes:
      left_out: the ids of images that were left out, with what is wrong with them.

    Raises:
      UserError: there are more classes than masks can hold.
    """

    VERSION = tfds.core.Version("1.3.0")
    """Before 1.3.0, images were not turned as their EXIF data say. Before 1.2.0, ids and sizes were
    in metadata.json."""

    def __init__(
        self,
        *,
        folder: Path,
        split: str,
        fingerprint: str,
        ids: Sequence[str],
        classes: Sequence[str],
        masks: bool,
        damaged_share: float = 0.0,
    ):
        if masks:
            check_mask_classes(len(classes))
        self.damaged_share, self.left_out = damaged_share, dict[str, str]()
        self.split = re.sub(r"\W", "_", split)
        self.ids, self.classes, self.masks = ids, tuple(classes), masks
        self._sizes = np.zeros((len(ids), 2), np.int32)
        self.advance: Callable[[], None] = lambda: None
        """A function that is called after each record is written."""
        self._metadata = _Metadata(
            ids, self._sizes, self.left_out, classes=self.classes, masks=masks, digest=""
        )
        config = tfds.core.BuilderConfig(name=f"{self.split}-{fingerprint[:16]}")
        before = folder / self.name / config.name / str(self.VERSION)
        _remove_if_damaged(before, split)  # It reads what was written before.
        try:
            with quiet():
                super().__init__(data_dir=folder, config=config, file_format="array_record")
        except Exception as error:  # Libraries of TFDS raise errors of their own.
            raise damaged(before, error) from error

    @abc.abstractmethod
    def records(self, positions: range) -> Iterator[Record]:
        """Yields the records at `positions`, in order; it is called once per shard, in order.

        Records may be left out if `left_out` has their ids.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any] = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(),
            "label": tfds.features.Tensor(shape=(len(self.classes),), dtype=np.float32),
        }
        if self.masks:
            features["segmentation"] = tfds.features.Image(
                shape=(None, None, 1), encoding_format="png"
            )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images with image-level labels and, where known, class index masks.",
            features=tfds.features.FeaturesDict(features),
            metadata=self._metadata,
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
        size = max(_RECORDS_PER_SHARD, -(-len(self.ids) // _MOST_SHARDS))
        starts = range(0, len(self.ids), size)
        digest = hashlib.sha256("\n".join(self.classes).encode())

        def shard(start: int) -> Iterator[tuple[int, dict[str, Any]]]:
            positions = range(start, min(start + size, len(self.ids)))
            listed = iter(positions)
            for record in self.records(positions):
                position = next(p for p in listed if self.ids[p] == record["id"])
                _digest(digest, record)
                self.advance()
                example = dict(record)
                self._sizes[position] = record["size"]
                del example["size"]
                if not self.masks:
                    del example["segmentation"]
                yield position, example
            # They are complete after the last shard, before TFDS writes the metadata.
            self._metadata["digest"] = digest.hexdigest()

        return {self.split: [lambda start=start: shard(start) for start in starts]}


class _Metadata(tfds.core.MetadataDict):
    """Metadata of which `ids` and `sizes` are files of their own, which are read in no time."""

    def __init__(
        self,
        ids: Sequence[str],
        sizes: Int32[np.ndarray, "n 2"],
        left_out: Mapping[str, str],
        **others: Any,
    ):
        super().__init__(**others)
        self._ids, self._sizes, self._left_out = ids, sizes, left_out

    def save_metadata(self, data_dir: Any) -> None:
        """Writes the metadata; TFDS calls it."""
        super().save_metadata(data_dir)
        with open(Path(data_dir) / IDS, "w", encoding="utf-8", newline="") as file:
            file.writelines(f"{name}\n" for name in self._ids if name not in self._left_out)
        kept = np.fromiter((name not in self._left_out for name in self._ids), bool)
        np.save(Path(data_dir) / SIZES, self._sizes[kept])
        if self._left_out:
            write_json(Path(data_dir) / SKIPPED, self._left_out)


def prepare(builder: RecordBuilder) -> PreparedSource:
    """Opens the records of `builder`, and writes them first if they do not exist.

    They appear whole or not at all. If there are several processes, one writes and the others wait.

    Raises:
      UserError: the builder refuses its input, or the records cannot be written.
    """
    folder = Path(builder.data_dir)
    try:
        if not folder.exists():
            with _lock(folder.parent) as alone:
                if not folder.exists():
                    _write(builder, folder, alone)
    except (OSError, RuntimeError) as error:
        found = [no_space(error)] if no_space(error) else []
        found += [what for code, what in _FIXABLE.items() if os.strerror(code) in str(error)]
        if isinstance(error, OSError) and error.errno:
            found.append(os.strerror(error.errno).lower())
        if folder.exists():  # Another process was faster; see _lock.
            found = []
        elif not found:
            raise
        if found:
            raise UserError(
                f"expected to write the prepared records to {folder}, found {found[0]}: fix this or"
                " set data.data_dir to another folder"
            ) from error
    if not (folder / SUMS).exists() and os.access(folder, os.W_OK):
        write_sums(folder)
    source = PreparedSource(folder)
    if source.left_out:
        check_left_out(source.left_out, len(builder.ids), builder.damaged_share)
        console.note(f"{source.told_left_out()} of {builder.split}")
    return source


def check_left_out(left_out: Mapping[str, str], listed: int, damaged_share: float) -> None:
    """Refuses too many damaged images.

    Args:
      left_out: the ids of damaged images, with what is wrong with them.
      listed: the number of all images.
      damaged_share: the share of them that may be damaged.

    Raises:
      UserError: more are damaged, or all of them.
    """
    if len(left_out) <= damaged_share * listed and len(left_out) < listed:
        return
    error, *_ = left_out.values()
    names = list(left_out)
    rest = f" (and {len(names) - 1} more: {first(names[1:], 4)})" if names[1:] else ""
    # Three digits, rounded up.
    enough = math.ceil(1000 * len(left_out) / listed) / 1000
    advice = f"; --config.data.damaged_share={enough:g} leaves damaged images out"
    raise UserError(f"{error}{rest}{advice if len(left_out) < listed else ''}")


def _remove_if_damaged(folder: Path, split: str) -> None:
    """Removes a folder of prepared records that are not as they were written, and says so."""
    if not damage(folder):
        return
    try:
        with _lock(folder.parent):
            if what := damage(folder):
                console.note(
                    f"the prepared records of {split} in {folder} are damaged ({what}) and are"
                    " prepared again"
                )
                if folder.is_dir() and not folder.is_symlink():
                    shutil.rmtree(folder)
                else:
                    folder.unlink()
    except OSError as error:
        raise damaged(folder, error) from error


def _digest(digest: Any, record: Record) -> None:
    how = how_decoded(record["image"])
    for part in (  # The image includes its size.
        record["id"].encode(),
        record["image"],
        record["label"].tobytes(),
        record["segmentation"] or b"",
        *([how.encode()] if how else []),
    ):
        # The length separates the part from its neighbors.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)


def _write(builder: RecordBuilder, folder: Path, alone: bool) -> None:
    found = {p.name for p in folder.parent.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", p.name)}
    older = sorted(found - {folder.name})
    if older:
        console.note(
            f"the prepared records of {builder.split} in {folder.parent} have an older"
            f" format ({', '.join(older)}) and are prepared again ({folder.name})"
        )
    if alone:
        for leftover in folder.parent.glob("*incomplete*"):  # from a preparation that was killed
            shutil.rmtree(leftover, ignore_errors=True)
    label = f"preparing {builder.name} {builder.split}"
    # Nothing is downloaded, but TFDS requires a folder for downloads.
    with (
        Progress(len(builder.ids), label) as progress,
        tempfile.TemporaryDirectory() as downloads,
        quiet(),
    ):
        builder.advance = progress.update
        builder.download_and_prepare(download_dir=downloads)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Locks a folder against other processes; the system releases the lock of a dead process.

    Yields False on disks without locks, such as some network disks. Several processes may then
    write, each to its own folder. The first one to rename its folder wins, and the others fail to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", fallback_to_soft=False)
    with contextlib.suppress(OSError):
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()
