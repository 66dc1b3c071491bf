"""The images of a folder as they are: no list, no labels, no masks."""

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
    """A source (see `wsss_jax.data.source.Source`) of image files; ids are their names' stems.

    Args:
      looked_at: the files, with the beginning of the SHA-256 and the size (height, width) of each.
      classes: foreground names.

    Attributes:
      digests: the beginnings of the SHA-256, in the order of the ids.
    """

    def __init__(
        self, looked_at: Mapping[Path, tuple[str, tuple[int, int]]], classes: tuple[str, ...]
    ):
        self._paths = list(looked_at)
        self.ids = [path.stem for path in self._paths]
        self.classes = classes
        self.digests = [digest for digest, _ in looked_at.values()]
        self.sizes = [size for _, size in looked_at.values()]
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
    """The images of `folder`, not of folders in it, by name, and what is wrong with the others.

    Args:
      folder: with files ``.jpg``, ``.jpeg`` or ``.png`` in any case; others are passed over.
      classes: foreground names that the source is to have.

    Raises:
      UserError: no folder, no image in it, or two images of one name.
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
                f"expected one image of each name, found {other.name} and {path.name} in {folder},"
                " whose masks would have one name: rename one"
            )
    good: dict[Path, tuple[str, tuple[int, int]]] = {}
    damaged: list[UserError] = []
    with Progress(len(paths), "looking at images") as progress, ThreadPoolExecutor(4) as pool:
        for path, found in zip(paths, pool.map(_look_at, paths), strict=True):
            if isinstance(found, UserError):
                damaged.append(found)
            else:
                good[path] = found
            progress.update()
    if not good:
        raise UserError(f"expected images in {folder}, found {len(paths)} damaged files")
    return Photographs(good, classes), damaged


def _look_at(path: Path) -> tuple[str, tuple[int, int]] | UserError:
    """Digest and size of a whole image; the mistake where it is none."""
    try:
        data = path.read_bytes()
        image = decode_image(data, str(path))
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"expected an image at {path}: {error.strerror}")
    return hashlib.sha256(data).hexdigest()[:16], (image.shape[0], image.shape[1])
