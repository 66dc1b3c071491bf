"""Images in memory as a source of records, for the Python interface."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from wsss_jax.data.images import decode_image
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes
from wsss_jax.inference.multi_scale import NetworkMaps

Photo = str | os.PathLike[str] | Image.Image | np.ndarray
"""The path of an image file, a PIL image, or RGB values uint8 [h, w, 3] (gray: [h, w])."""

_TOGETHER = 8
"""The images that are planned together; all of them are in memory."""

Result = TypeVar("Result")


class Images:
    """A source (see `wsss_jax.data.source.Source`) of images in memory, all with one label."""

    digest = ""

    def __init__(self, images: Sequence[Photo], label: np.ndarray, classes: tuple[str, ...]):
        self.classes = classes
        self._label = label
        self._files = [encoded(image) for image in images]
        self.ids = [
            os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {index}"
            for index, image in enumerate(images)
        ]
        self.arrays = [decode_image(*one) for one in zip(self._files, self.ids, strict=True)]
        self.sizes = [(one.shape[0], one.shape[1]) for one in self.arrays]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        return Record(
            id=self.ids[index],
            image=self._files[index],
            size=self.sizes[index],
            label=self._label,
            segmentation=None,
        )


def in_groups(
    images: Iterable[Photo],
    label: np.ndarray,
    classes: tuple[str, ...],
    maps_of: Callable[[Images], NetworkMaps],
    result: Callable[[Images, int, Any], Result],
) -> Iterator[Result]:
    """Yields a result for every image in order; `_TOGETHER` of them are planned together."""
    if isinstance(images, str | os.PathLike | Image.Image | np.ndarray):
        raise UserError("expected a list of images, found a single one: put it in a list")
    waiting = iter(images)
    while group := list(itertools.islice(waiting, _TOGETHER)):
        source = Images(group, label, classes)
        maps = maps_of(source)
        made: dict[int, Result] = {}
        for batch in maps.plan.batches(range(len(source))):
            jobs = [maps.prepare(position) for position in batch.positions]
            for job, values in maps.on_device(batch, jobs):
                made[job.position] = result(source, job.position, values)
        yield from (made[position] for position in range(len(source)))


def encoded(image: Photo) -> bytes:
    """Returns the file of an image; arrays become PNG, which loses nothing."""
    if isinstance(image, str | os.PathLike):
        return read_bytes(Path(image))
    done, data = cv2.imencode(".png", cv2.cvtColor(decoded(image), cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError("OpenCV could not encode the image")
    return data.tobytes()


def decoded(image: Photo) -> UInt8[np.ndarray, "h w 3"]:
    """Returns an image in RGB, as viewers show it.

    Raises:
      UserError: it cannot be read, or the array has another form.
    """
    if isinstance(image, str | os.PathLike):
        return decode_image(read_bytes(Path(image)), str(image))
    if isinstance(image, Image.Image):
        return np.asarray(cast(Image.Image, ImageOps.exif_transpose(image)).convert("RGB"))
    array = np.asarray(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, -1)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise UserError(
            f"expected RGB values uint8 [h, w, 3], found {array.dtype} {list(array.shape)}: convert"
            " the image"
        )
    return np.ascontiguousarray(array)
