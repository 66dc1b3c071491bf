"""A source of all images in a folder, without a list, labels or masks."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from wsss_jax.data.images import decode_image
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.progress import Progress

SUFFIXES = (".jpg", ".jpeg", ".png")


class Photographs:
    """A source (see `wsss_jax.data.source.Source`) of image files, whose ids are their stems.

    Args:
      files: the image files, with the first digits of the SHA-256 and the size (height, width) of
        each.
      classes: the names of the foreground classes.

    Attributes:
      digests: the first digits of the SHA-256 of each file, in the order of the ids.
    """

    def __init__(self, files: Mapping[Path, tuple[str, tuple[int, int]]], classes: tuple[str, ...]):
        self._paths = list(files)
        self.ids = [path.stem for path in self._paths]
        self.classes = classes
        self.digests = [digest for digest, _ in files.values()]
        self.sizes = [size for _, size in files.values()]
        self.digest = hashlib.sha256("".join([*self.ids, *self.digests]).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Record:
        label = np.zeros(len(self.classes), np.float32)
        return Record(
            id=self.ids[index],
            image=self._paths[index].read_bytes(),
            size=self.sizes[index],
            label=label,
            segmentation=None,
        )


def open_photographs(folder: Path, classes: tuple[str, ...]) -> tuple[Photographs, list[UserError]]:
    """Opens the images of a folder, sorted by name; subfolders are not searched.

    Args:
      folder: a folder with ``.jpg``, ``.jpeg`` or ``.png`` files, in upper or lower case; other
        files are skipped.
      classes: the names of the source's foreground classes.

    Returns:
      The source, and an error for each damaged image.

    Raises:
      UserError: there is no such folder, it has no readable image, or two of its images have the
        same stem.
    """
    if not folder.is_dir():
        raise UserError(f"expected a folder of images at {folder}, found none: check the path")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise UserError(f"expected images ({', '.join(SUFFIXES)}) in {folder}, found none")
    by_stem: dict[str, Path] = {}
    for path in paths:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise UserError(
                f"expected images with different names, found {other.name} and {path.name} in"
                f" {folder}, whose masks would have the same name: rename one of them"
            )
    good: dict[Path, tuple[str, tuple[int, int]]] = {}
    damaged: list[UserError] = []
    with Progress(len(paths), "checking images") as progress, ThreadPoolExecutor(4) as pool:
        for path, found in zip(paths, pool.map(_check, paths), strict=True):
            if isinstance(found, UserError):
                damaged.append(found)
            else:
                good[path] = found
            progress.update()
    if not good:
        raise UserError(
            f"expected images in {folder}, found {len(paths)} damaged files: replace them"
        )
    return Photographs(good, classes), damaged


def _check(path: Path) -> tuple[str, tuple[int, int]] | UserError:
    """Returns the digest and size of an image, or an error if it is damaged."""
    try:
        data = path.read_bytes()
        image = decode_image(data, str(path))
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"expected an image at {path}, found none ({error.strerror})")
    return hashlib.sha256(data).hexdigest()[:16], (image.shape[0], image.shape[1])
