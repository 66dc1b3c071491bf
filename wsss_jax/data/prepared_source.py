"""Opens prepared records, and finds those that are not as they were written.

``sums.json`` in the folder of a split has the size, time and digest of every other file. Digests
are only compared where the size or the time differ, and array_record has checksums of its own,
which are compared whenever records are read.
"""

import contextlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from wsss_jax import digests
from wsss_jax.data.columns import Names, Size, Sizes
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError, used_up
from wsss_jax.files import files_below, write_json
from wsss_jax.records import read_record

IDS, SIZES, SKIPPED = "ids.txt", "sizes.npy", "skipped.json"
"""The files of ids, of sizes, and of images that were left out."""
SUMS = "sums.json"
"""The file of sums; see the module."""

_UNREADABLE = "unreadable"  # an empty file that says that a record could not be read


class PreparedSource:
    """A `Source` of the records in a prepared folder.

    Reading is thread-safe.

    Attributes:
      left_out: the ids of damaged images that have no record, with what is wrong with them.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        skipped = folder / SKIPPED
        self.left_out = read_record(skipped, {}, "delete this folder") if skipped.exists() else {}
        try:
            fields = {"classes": list[str], "digest": str, "masks": bool}
            metadata = read_record(folder / "metadata.json", fields, "")
            self.ids: Sequence[str] = Names((folder / IDS).read_bytes())
            self.sizes: Sequence[Size] = Sizes(np.load(folder / SIZES))
            self.classes: tuple[str, ...] = tuple(metadata["classes"])
            self.digest: str = metadata["digest"]
            encoded = ("image", "segmentation") if metadata["masks"] else ("image",)
            # Images stay encoded, because our own decoding agrees with that of published loaders.
            decoders: Any = dict.fromkeys(encoded, tfds.decode.SkipDecoding())
            with quiet():
                builder: Any = tfds.builder_from_directory(folder)
                (split,) = builder.info.splits
                self._records: Any = builder.as_data_source(split=split, decoders=decoders)
        except Exception as error:  # Libraries of TFDS raise errors of their own.
            raise damaged(folder, error) from error
        if not len(self.ids) == len(self.sizes) == len(self._records):
            raise damaged(folder, "lists of different lengths")

    def told_left_out(self) -> str:
        """Returns the beginning of a sentence on the images that were left out."""
        count, listed = len(self.left_out), len(self.left_out) + len(self)
        where = self.folder / SKIPPED
        return f"{count:,} damaged images (named in {where}) were left out of the {listed:,} images"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self.ids):
            raise IndexError(f"record {index} of {len(self.ids)}")
        try:
            found = self._records[index]
            if found["id"].decode() != self.ids[index]:
                raise ValueError(f"record {index} is not {self.ids[index]}")
        except Exception as error:  # Libraries of TFDS raise errors of their own.
            if not used_up(error):
                with contextlib.suppress(OSError):
                    (self.folder / _UNREADABLE).touch()
            raise damaged(self.folder, error) from error
        return Record(
            id=self.ids[index],
            image=found["image"],
            size=self.sizes[index],
            label=found["label"],
            segmentation=found.get("segmentation"),
        )


def damaged(folder: Path, what: Exception | str) -> UserError:
    """Returns the error of a folder of damaged records, or of what was lacking to read them."""
    if isinstance(what, Exception) and (lacking := used_up(what)):
        return UserError(f"cannot read the prepared records in {folder}: {lacking}")
    what = " ".join(str(what).split())
    return UserError(
        f"expected prepared records in {folder}, found damaged ones ({what}): run the same command"
        " again, which prepares them again, or delete this folder if it does not"
    )


def damage(folder: Path) -> str:
    """Returns what is wrong with a folder of prepared records, or an empty string."""
    if not folder.is_dir():
        return "it is not a folder" if os.path.lexists(folder) else ""
    if (folder / _UNREADABLE).exists():
        return "a record could not be read"
    if not (folder / SUMS).exists():  # It was written by an earlier version, or just now.
        return ""
    name = SUMS
    try:
        sums = read_record(folder / SUMS, {"files": list[list]}, "")["files"]
        for name, size, time, digest in sums:
            state = (folder / name).stat()
            if [state.st_size, state.st_mtime_ns] == [size, time] and stat.S_ISREG(state.st_mode):
                continue
            if state.st_size != size or digests.found(folder, name).digest != digest:
                return f"{name} has changed"
    except (UserError, ValueError, TypeError):
        return f"{SUMS} has changed"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError:
        return f"{name} cannot be read"
    return ""


def write_sums(folder: Path) -> None:
    """Writes ``sums.json``, to which `damage` compares the other files."""
    sums: list[list[Any]] = []
    for path in sorted(files_below(folder)):
        name = path.relative_to(folder).as_posix()
        if name == SUMS or path.name.startswith("."):  # Another process does the same just now.
            continue
        state = path.stat()
        sums.append([name, state.st_size, state.st_mtime_ns, digests.found(folder, name).digest])
    # A full disk only costs the comparison.
    with contextlib.suppress(OSError, UserError):
        write_json(folder / SUMS, {"files": sums})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides the output and warnings of TFDS, because we show our own progress."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
