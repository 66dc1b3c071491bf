"""The built-in data set of creatures in landscapes, which is drawn on first use."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from wsss_jax.data.columns import Names
from wsss_jax.data.prepared import RecordBuilder
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.data.shapes import CLASSES, EDITION, SPLITS, render
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.settings.limits import check_limits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes(DataSettings):
    """Creatures in landscapes with exact masks; the splits are ``train`` and ``val``.

    `wsss_jax.data.shapes` draws the images.

    Attributes:
      train_images: the number of images in the split ``train``.
      val_images: the number of images in the split ``val``.
      size: the height and width of an image in pixels.
      seed: the seed of the drawing.
    """

    train_images: int = 800
    val_images: int = 200
    size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
          UserError: a value is out of its range.
        """
        images = (1, 10**6)
        check_limits(self, train_images=images, val_images=images)
        check_limits(self, size=(32, 1024), seed=(0, 2**32 - 1))

    def builder(self, split: str) -> "ShapesBuilder":
        """Returns the builder of `split`; nothing is drawn yet. See `DataSettings`."""
        if split not in SPLITS:
            raise UserError(
                f"expected a split of the built-in data ({', '.join(SPLITS)}), found {split!r}:"
                " change the stage's split"
            )
        images = {"train": self.train_images, "val": self.val_images}[split]
        return ShapesBuilder(self.prepared_root, split, images, self.seed, self.size)


class ShapesBuilder(RecordBuilder, skip_registration=True):
    """Draws a split as a TFDS builder."""

    name = "shapes"

    def __init__(self, folder: Path, split: str, images: int, seed: int, size: int):
        self._name, self._seed, self._size = split, seed, size
        options = dict(split=split, images=images, seed=seed, size=size)
        described = json.dumps([EDITION, options], sort_keys=True)
        super().__init__(
            folder=folder,
            split=split,
            fingerprint=hashlib.sha256(described.encode()).hexdigest(),
            ids=Names.of(f"{split}_{index:05d}" for index in range(images)),
            classes=CLASSES,
            masks=True,
        )

    def records(self, positions: range) -> Iterator[Record]:
        """Draws the pictures at `positions`."""
        for index in positions:
            image, mask = render(index, self._name, self._seed, self._size)
            label = np.zeros(len(CLASSES), np.float32)
            label[np.unique(mask[mask > 0]) - 1] = 1.0
            yield Record(
                id=self.ids[index],
                # Noise has no repetitions, so Huffman coding alone is smaller and faster.
                image=_png(image[..., ::-1], cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY),
                size=(self._size, self._size),
                label=label,
                segmentation=_png(mask, cv2.IMWRITE_PNG_STRATEGY_DEFAULT),
            )


def _png(pixels: np.ndarray, strategy: int) -> bytes:
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, strategy]
    done, encoded = cv2.imencode(".png", pixels, settings)
    if not done:
        raise ValueError(f"OpenCV could not write an image of shape {pixels.shape}")
    return encoded.tobytes()
