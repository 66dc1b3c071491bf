"""Writes data sets once with TensorFlow Datasets (without TensorFlow), for random access.

A builder is a subclass of `RecordBuilder`. `prepare` writes its records as array_record shards to
``<folder>/<builder>/<split>-<fingerprint>/``, unless they exist, and opens them.
"""

import abc
import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from filelock import FileLock
from google.protobuf.json_format import ParseError
from jaxtyping import Int32

from wsss_jax import console
from wsss_jax.data.class_names import check_mask_classes
from wsss_jax.data.columns import Names, Size, Sizes
from wsss_jax.data.images import how_decoded
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.files import read_json
from wsss_jax.progress import Progress

# TFDS keeps the records of a shard in memory while it writes them. Every shard that is read stays
# open, and systems mostly allow 1,024 open files.
_RECORDS_PER_SHARD, _MOST_SHARDS = 512, 512

_IDS, _SIZES = "ids.txt", "sizes.npy"

# They are recognized by their text, because array_record wraps system errors in RuntimeErrors.
_FIXABLE = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the quota used up",
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
    ):
        if masks:
            check_mask_classes(len(classes))
        self.split = re.sub(r"\W", "_", split)
        self.ids, self.classes, self.masks = ids, tuple(classes), masks
        self._sizes = np.zeros((len(ids), 2), np.int32)
        self.advance: Callable[[], None] = lambda: None
        """A function that is called after each record is written."""
        self._metadata = _Metadata(ids, self._sizes, classes=self.classes, masks=masks, digest="")
        config = tfds.core.BuilderConfig(name=f"{self.split}-{fingerprint[:16]}")
        try:
            with _quiet():
                super().__init__(data_dir=folder, config=config, file_format="array_record")
        except ParseError as error:  # It reads what it wrote before.
            raise _damaged(folder / self.name / config.name, error) from error

    @abc.abstractmethod
    def records(self, positions: range) -> Iterator[Record]:
        """Yields the records at `positions`; it is called once per shard, in order."""

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
            for position, record in enumerate(self.records(positions), start):
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

    def __init__(self, ids: Sequence[str], sizes: Int32[np.ndarray, "n 2"], **others: Any):
        super().__init__(**others)
        self._ids, self._sizes = ids, sizes

    def save_metadata(self, data_dir: Any) -> None:
        """Writes the metadata; TFDS calls it."""
        super().save_metadata(data_dir)
        with open(Path(data_dir) / _IDS, "w", encoding="utf-8", newline="") as file:
            file.writelines(f"{name}\n" for name in self._ids)
        np.save(Path(data_dir) / _SIZES, self._sizes)


def prepare(builder: RecordBuilder) -> "PreparedSource":
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
        found = [what for code, what in _FIXABLE.items() if os.strerror(code) in str(error)]
        if found:
            raise UserError(
                f"expected to write the prepared records to {folder}, found {found[0]}: fix this or"
                " set data.data_dir to another folder"
            ) from error
        if not folder.exists():  # If it exists, another process was faster; see _lock.
            raise
    return PreparedSource(folder)


class PreparedSource:
    """A `Source` of the records in a prepared folder.

    Reading is thread-safe. A pickle only contains the name of the folder, so that worker processes
    open the files themselves.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            metadata = read_json(folder / "metadata.json")
            self.ids: Sequence[str] = Names((folder / _IDS).read_bytes())
            self.sizes: Sequence[Size] = Sizes(np.load(folder / _SIZES))
            self.classes: tuple[str, ...] = tuple(metadata["classes"])
            self.digest: str = metadata["digest"]
            encoded = ("image", "segmentation") if metadata["masks"] else ("image",)
            # Images stay encoded, because our own decoding agrees with that of published loaders.
            decoders: Any = dict.fromkeys(encoded, tfds.decode.SkipDecoding())
            with _quiet():
                builder: Any = tfds.builder_from_directory(folder)
                (split,) = builder.info.splits
                self._records: Any = builder.as_data_source(split=split, decoders=decoders)
        except Exception as error:  # Libraries of TFDS raise errors of their own.
            raise _damaged(folder, error) from error
        if not len(self.ids) == len(self.sizes) == len(self._records):
            raise _damaged(folder, "lists of different lengths")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self.ids):
            raise IndexError(f"record {index} of {len(self.ids)}")
        try:
            found = self._records[index]
        except Exception as error:  # Libraries of TFDS raise errors of their own.
            raise _damaged(self.folder, error) from error
        return Record(
            id=found["id"].decode(),
            image=found["image"],
            size=self.sizes[index],
            label=found["label"],
            segmentation=found.get("segmentation"),
        )

    def __reduce__(self) -> tuple[type["PreparedSource"], tuple[Path]]:
        return PreparedSource, (self.folder,)


def _damaged(folder: Path, what: object) -> UserError:
    what = " ".join(str(what).split())
    return UserError(
        f"expected prepared records in {folder}, found damaged ones ({what}): delete this folder"
        " and run the same command again, which prepares them again"
    )


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
        _quiet(),
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the output and warnings of TFDS, because we show our own progress."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
