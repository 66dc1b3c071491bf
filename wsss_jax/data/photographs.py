"""A source of all images in a folder and below, without a list, labels or masks."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from wsss_jax.data.images import SUFFIXES, decode_image
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes
from wsss_jax.progress import Progress

# Suffixes of images that cannot be read, which are named instead of passed over.
_UNREAD = frozenset(
    (
        *(".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".svg", ".eps", ".pdf", ".ppm"),
        *(".pgm", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".psd"),
    )
)


class Photographs:
    """A source (see `wsss_jax.data.source.Source`) of image files.

    Args:
      files: the image files by their ids, with the first digits of the SHA-256 and the size
        (height, width) of each.
      classes: the names of the foreground classes.

    Attributes:
      digests: the first digits of the SHA-256 of each file, in the order of the ids.
    """

    def __init__(
        self, files: Mapping[str, tuple[Path, str, tuple[int, int]]], classes: tuple[str, ...]
    ):
        self.ids = list(files)
        self.classes = classes
        self._paths = [path for path, _, _ in files.values()]
        self.digests = [digest for _, digest, _ in files.values()]
        self.sizes = [size for _, _, size in files.values()]
        self.digest = hashlib.sha256("".join([*self.ids, *self.digests]).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Record:
        label = np.zeros(len(self.classes), np.float32)
        return Record(
            id=self.ids[index],
            image=read_bytes(self._paths[index]),
            size=self.sizes[index],
            label=label,
            segmentation=None,
        )


def open_photographs(
    where: Path, classes: tuple[str, ...], leave_out: Path | None = None
) -> tuple[Photographs, list[UserError]]:
    """Opens the images of a folder and its subfolders, sorted by id, or a single image.

    The id of an image is its path below the folder, without suffix. Hidden files and files without
    a suffix of images are skipped.

    Args:
      where: a folder, or an image.
      classes: the names of the source's foreground classes.
      leave_out: a folder that is not searched.

    Returns:
      The source, and an error for each image that is damaged or in a format that is not read.

    Raises:
      UserError: there is no such file or folder, it has no readable image, or two of its images
        have the same id.
    """
    if not where.exists():
        raise UserError(f"expected a folder of images at {where}, found none: check the path")
    paths: dict[str, Path] = {}
    damaged: list[UserError] = []
    for path in [where] if not where.is_dir() else _files(where, leave_out):
        below = path.name if path == where else path.relative_to(where).as_posix()
        if path.suffix.lower() in _UNREAD:
            damaged.append(
                UserError(
                    f"expected an image ({', '.join(SUFFIXES)}), found {path}: save it as JPEG or"
                    " PNG"
                )
            )
        elif path.suffix.lower() in SUFFIXES or path == where:
            other = paths.setdefault(below.removesuffix(path.suffix), path)
            if other is not path:
                raise UserError(
                    f"expected images with different names, found {other.name} and {path.name} in"
                    f" {path.parent}, whose masks would have the same name: rename one of them"
                )
    if not paths:
        also = f" but {len(damaged)} in other formats" if damaged else ""
        raise UserError(f"expected images ({', '.join(SUFFIXES)}) in {where}, found none{also}")
    good: dict[str, tuple[Path, str, tuple[int, int]]] = {}
    with Progress(len(paths), "checking images") as progress, ThreadPoolExecutor(4) as pool:
        for name, found in zip(paths, pool.map(_check, paths.values()), strict=True):
            if isinstance(found, UserError):
                damaged.append(found)
            else:
                good[name] = paths[name], *found
            progress.update()
    if not good:
        raise UserError(
            f"expected images in {where}, found {len(damaged)} damaged files ({damaged[0]}):"
            " replace them"
        )
    return Photographs(dict(sorted(good.items())), classes), damaged


def _files(folder: Path, leave_out: Path | None) -> Iterator[Path]:
    """Yields the files in a folder and below, except for hidden ones."""
    for parent, folders, names in os.walk(folder):
        left_out = leave_out.resolve() if leave_out else None
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (Path(parent) / name).resolve() != left_out
        )
        yield from (Path(parent) / name for name in sorted(names) if not name.startswith("."))


def _check(path: Path) -> tuple[str, tuple[int, int]] | UserError:
    """Returns the digest and size of an image, or an error if it is damaged."""
    try:
        data = read_bytes(path)
        image = decode_image(data, str(path))
    except UserError as error:
        return error
    return hashlib.sha256(data).hexdigest()[:16], (image.shape[0], image.shape[1])
