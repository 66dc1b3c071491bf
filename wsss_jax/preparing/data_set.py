"""A data set that is ready to be written, and how it is written.

It becomes a folder laid out like PASCAL VOC, which recipes take with ``data.root`` alone:

    JPEGImages/ID.jpg                     hard links or copies, or PNGs of what was re-encoded
    SegmentationClass/ID.png              masks of class indices, where there are any
    ImageSets/Segmentation/train.txt      the ids of a split, one per line
    labels.csv, classes.txt               image-level labels, and the names of the classes
    sources.csv                           the file and SHA-256 that each photograph comes from
    prepared.json                         what was done; it is written last

Files appear whole or not at all. The same command goes on where it was interrupted.
"""

import csv
import dataclasses
import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from wsss_jax import __version__
from wsss_jax.data.formats.id_lists import IMAGE_FOLDER
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import encode_mask
from wsss_jax.data.plain_folder import PREPARED, PREPARING
from wsss_jax.data.threads import thread_pool
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, dump_json, read_bytes, write_json
from wsss_jax.preparing.photographs import UNTURNED, Photograph
from wsss_jax.progress import Progress
from wsss_jax.records import read_record

MASK_FOLDER, LIST_FOLDER = "SegmentationClass", "ImageSets/Segmentation"
LABELS, CLASSES, SOURCES = "labels.csv", "classes.txt", "sources.csv"
_NO_LINKS = (
    *(errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EACCES),
    *(errno.EOPNOTSUPP, errno.ENOSYS),
)

Mask = UInt8[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set that is ready to be written.

    Attributes:
      photographs: the photographs, sorted.
      classes: the names of the C foreground classes.
      labels: zeros and ones [N, C].
      splits: the positions of the photographs of each split.
      masks: a function that reads the mask of a photograph, by position, for those that have one.
      how: what `prepared.json` tells of the command: its options and its label files.
      remarks: what the user should know.
    """

    photographs: Sequence[Photograph]
    classes: tuple[str, ...]
    labels: UInt8[np.ndarray, "n c"]
    splits: Mapping[str, Sequence[int]]
    masks: Mapping[int, Callable[[], Mask]]
    how: Mapping[str, Any]
    remarks: Sequence[str]

    def plan(self) -> str:
        """Returns the digest of everything that the written files depend on."""
        digest = hashlib.sha256(dump_json(self.how).encode())
        for one in self.photographs:
            digest.update(f"{one.id}\n{one.sha256}\n".encode())
        digest.update(self.labels.tobytes() + "\n".join(self.classes).encode())
        digest.update(dump_json({k: list(v) for k, v in self.splits.items()}).encode())
        return digest.hexdigest()


def write(data: DataSet, out: Path, copy: bool = False) -> bool:
    """Writes a data set, or what is still missing of it.

    Args:
      data: the data set.
      out: the folder, which may be new, empty, or one in which the same command was interrupted.
      copy: copy photographs instead of linking them.

    Returns:
      False if everything was there already.

    Raises:
      UserError: the folder has something else, or a file cannot be written.
    """
    plan = data.plan()
    if not begin(out, plan):
        return False
    tasks: list[Callable[[], None]] = []
    for position, one in enumerate(data.photographs):
        tasks.append(lambda one=one: _write_photograph(one, out / IMAGE_FOLDER, copy))
        if read := data.masks.get(position):
            path = out / MASK_FOLDER / f"{one.id}.png"
            tasks.append(lambda path=path, read=read: write_mask(path, read))
    run_all(tasks, "writing")
    ids = [one.id for one in data.photographs]
    write_lists(out, {name: [ids[p] for p in chosen] for name, chosen in data.splits.items()})
    write_labels(out, ids, data.classes, data.labels)
    rows = ((p.id, str(p.path), p.sha256, p.change) for p in data.photographs)
    _write_csv(out / SOURCES, [("id", "file", "sha256", "change"), *rows])
    finish(
        out,
        plan,
        {
            **data.how,
            "images": len(ids),
            "splits": {name: len(chosen) for name, chosen in data.splits.items()},
            "images_of_classes": dict(
                zip(data.classes, data.labels.sum(axis=0, dtype=int).tolist(), strict=True)
            ),
            "masks": len(data.masks),
            "changed": {p.id: p.change for p in data.photographs if p.change},
            "remarks": list(data.remarks),
        },
    )
    return True


def digest_of(value: Mapping[str, Any]) -> str:
    """Returns the digest of values that written files depend on."""
    return hashlib.sha256(dump_json(value).encode()).hexdigest()


def begin(out: Path, plan: str) -> bool:
    """Opens a folder for a plan; returns False if it is finished.

    Raises:
      UserError: the folder has something else.
    """
    for name in (PREPARED, PREPARING):
        if not (out / name).exists():
            continue
        remedy = "choose another --out, or delete this folder"
        if read_record(out / name, {"plan": str}, remedy)["plan"] != plan:
            raise UserError(
                f"expected a new folder at {out}, found a data set of other files or options:"
                " choose another --out, or delete it"
            )
        if name == PREPARED:
            return False
    if out.is_dir() and not (out / PREPARING).is_file() and any(out.iterdir()):
        raise UserError(
            f"expected a new or empty folder at {out}, found files in it: choose another --out"
        )
    write_json(out / PREPARING, {"plan": plan})
    return True


def finish(out: Path, plan: str, told: Mapping[str, Any]) -> None:
    """Closes a folder with its record."""
    write_json(out / PREPARED, {"plan": plan, "wsss_jax": __version__, **told})
    (out / PREPARING).unlink(missing_ok=True)


def run_all(tasks: Sequence[Callable[[], None]], what: str) -> None:
    """Runs tasks in threads and shows how many are done."""
    with Progress(len(tasks), what, unit="files") as progress, thread_pool() as pool:
        for _ in pool.map(lambda task: task(), tasks):
            progress.update()


def place(path: Path, target: Path, copy: bool) -> None:
    """Makes `target` a hard link to `path`, or a copy where links are not possible or wanted."""
    if target.is_file() and target.stat().st_size == path.stat().st_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        try:
            os.link(path.resolve(), target)
            return
        except FileExistsError:
            target.unlink()
            return place(path, target, copy)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
    with path.open("rb") as source, atomic_write(target) as file:
        shutil.copyfileobj(source, file)


def write_mask(path: Path, read: Callable[[], Mask]) -> None:
    """Writes a mask with VOC's palette, unless it is there."""
    if not path.is_file():
        with atomic_write(path) as file:
            file.write(encode_mask(read()))


def write_lists(out: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Writes the ids of each split that has any."""
    for name, ids in splits.items():
        if ids:
            with atomic_write(out / LIST_FOLDER / f"{name}.txt") as file:
                file.write("".join(f"{one}\n" for one in ids).encode())


def write_labels(
    out: Path, ids: Sequence[str], classes: Sequence[str], labels: UInt8[np.ndarray, "n c"]
) -> None:
    """Writes the labels as rows ``id,class,class,...``, and the names of the classes."""
    rows = (
        (name, *(classes[int(c)] for c in np.flatnonzero(row)))
        for name, row in zip(ids, labels, strict=True)
    )
    with atomic_write(out / CLASSES) as file:
        file.write("".join(f"{name}\n" for name in classes).encode())
    _write_csv(out / LABELS, [("id", "classes"), *rows])


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    # With all cells in quotes, readers need not guess the delimiter.
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _write_photograph(one: Photograph, folder: Path, copy: bool) -> None:
    if one.suffix:
        return place(one.path, folder / f"{one.id}{one.suffix}", copy)
    target = folder / f"{one.id}.png"
    if target.is_file():
        return None
    data = read_bytes(one.path)
    if one.change == UNTURNED:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is None:
            raise UserError(f"expected an image, found a damaged one in {one.path}: replace it")
    else:
        pixels = cv2.cvtColor(decode_image(data, str(one.path)), cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"OpenCV could not write an image of shape {pixels.shape}")
    with atomic_write(target) as file:
        file.write(encoded.tobytes())
    return None
