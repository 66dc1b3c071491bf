"""A source of images and of those in folders and below, without a list or masks."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from wsss_jax import console
from wsss_jax.data.images import CONVERT, SUFFIXES, UNREAD, decode_image
from wsss_jax.data.plain_folder import told_results, walk
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError, first
from wsss_jax.files import read_bytes
from wsss_jax.progress import Progress

_DRAWINGS = (".svg", ".eps", ".pdf")


class Photographs:
    """A source (see `wsss_jax.data.source.Source`) of image files.

    Args:
      files: the image files by their ids, with the first digits of the SHA-256 and the size
        (height, width) of each.
      classes: the names of the foreground classes.
      label: the label of every image, zeros and ones; None for no class.

    Attributes:
      paths: the files.
      digests: the first digits of the SHA-256 of each file, in the order of the ids.
    """

    def __init__(
        self,
        files: Mapping[str, tuple[Path, str, tuple[int, int]]],
        classes: tuple[str, ...],
        label: Float32[np.ndarray, " c"] | None = None,
    ):
        self.ids = list(files)
        self._label = np.zeros(len(classes), np.float32) if label is None else label
        self.classes = classes
        self.paths = [path for path, _, _ in files.values()]
        self.digests = [digest for _, digest, _ in files.values()]
        self.sizes = [size for _, _, size in files.values()]
        self.digest = hashlib.sha256("".join([*self.ids, *self.digests]).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        data = read_bytes(self.paths[index])
        if _digest(data) != self.digests[index]:
            raise UserError(
                f"expected {self.paths[index]} as it was when the command began, found that it has"
                " changed: run the same command again"
            )
        return Record(
            id=self.ids[index],
            image=data,
            size=self.sizes[index],
            label=self._label,
            segmentation=None,
        )


def open_photographs(
    where: Path | Sequence[Path],
    classes: tuple[str, ...],
    leave_out: Path | None = None,
    label: Float32[np.ndarray, " c"] | None = None,
) -> tuple[Photographs, list[UserError]]:
    """Opens images and the images of folders and their subfolders, sorted by id.

    The id of an image is its path without suffix, below the folder or, of several folders and
    images, below the folder that all of them have in common. Hidden files, files without a suffix
    of images, and results of this program are skipped in folders, the last ones with a note.

    Args:
      where: a folder, an image, or several of these.
      classes: the names of the source's foreground classes.
      leave_out: a folder that is not searched.
      label: the label of every image; None for no class.

    Returns:
      The source, and an error for each image that is damaged or in a format that is not read.

    Raises:
      UserError: there is no such file or folder, there is no readable image, or two of the images
        have the same id.
    """
    places = [where] if isinstance(where, Path) else list(dict.fromkeys(where))
    for place in places:
        if not place.exists():
            raise UserError(
                f"expected a photograph or a folder at {place}, found none: check the path"
            )
    places = [Path(os.path.abspath(place)) for place in places]
    root = Path(os.path.commonpath([one if one.is_dir() else one.parent for one in places]))
    files: dict[Path, bool] = {}  # whether the file itself was named
    for place in places:
        if place.is_dir():
            results: list[Path] = []
            found = walk(place, [leave_out] if leave_out else [], results)
            files |= {one: files.get(one, False) for one in found}
            if told := told_results(results, place):
                console.note(told)
        else:
            files[place] = True
    names = first([str(place) for place in places], 3)
    paths: dict[str, Path] = {}
    damaged: list[UserError] = []
    for path, named in files.items():
        below = path.relative_to(root).as_posix()
        if os.fsencode(below).decode(errors="replace") != below:
            damaged.append(
                UserError(f"expected a file name in UTF-8, found {os.fsencode(path)!r}: rename it")
            )
        elif path.suffix.lower() in (*UNREAD, *_DRAWINGS):
            damaged.append(
                UserError(f"expected an image ({', '.join(SUFFIXES)}), found {path}: {CONVERT}")
            )
        elif path.suffix.lower() in SUFFIXES or named:
            other = paths.setdefault(below.removesuffix(path.suffix), path)
            if other is not path:
                raise UserError(
                    f"expected images with different names, found {other.name} and {path.name} in"
                    f" {path.parent}, whose masks would have the same name: rename one of them"
                )
    if not paths and not damaged:
        raise UserError(f"expected images ({', '.join(SUFFIXES)}) in {names}, found none")
    good: dict[str, tuple[Path, str, tuple[int, int]]] = {}
    with Progress(len(paths), "checking images") as progress, ThreadPoolExecutor(4) as pool:
        for name, found in zip(paths, pool.map(_check, paths.values()), strict=True):
            if isinstance(found, UserError):
                damaged.append(found)
            else:
                good[name] = paths[name], *found
            progress.update()
    if not good:
        if len(damaged) == 1:
            raise damaged[0]
        raise UserError(
            f"expected images in {names}, found {len(damaged)} files that cannot be read, the first"
            f" one because of this: {damaged[0]}"
        )
    return Photographs(dict(sorted(good.items())), classes, label), damaged


def _check(path: Path) -> tuple[str, tuple[int, int]] | UserError:
    """Returns the digest and size of an image, or an error if it is damaged."""
    try:
        data = read_bytes(path)
        image = decode_image(data, str(path))
    except UserError as error:
        return error
    return _digest(data), (image.shape[0], image.shape[1])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
