"""The built-in data set `shapes`: moulded creatures in landscapes, with exact masks.

A test bed for weakly supervised segmentation that needs no download. What makes photographs hard
is here by construction:

- Only the head (about a quarter of what is seen) tells a class. Every class comes with every body
  and every coat, though two classes each prefer the same coats, as cats and dogs do. So a
  classifier need not look at the body, and its class activation map does so little.
- Every class has a home (a frog's is the reef) where it is found nearly three times as often as in
  any other place, so a classifier may look at the place too.
- One to three creatures, of several classes or of one, hide parts of each other; their lengths
  differ by more than a factor of two; they are turned, mirrored, cut by the border, lit from a
  side. Things in the same coats but without a head are background.

The coat runs over body and head alike, so a method that spreads a map over pixels that look alike
has something to spread over.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from wsss_jax.data.prepared import RecordBuilder, prepare, prepared_root
from wsss_jax.data.shapes.compose import Composition, compose
from wsss_jax.data.shapes.heads import CLASSES
from wsss_jax.data.source import Record, Source
from wsss_jax.errors import UserError

__all__ = ["CLASSES", "SPLITS", "composition", "make_builder", "open_source", "render"]

SPLITS = ("train", "val")
_EDITION = 3  # of the pictures: one more whenever the drawing changes


def composition(index: int, split: str, seed: int, size: int) -> Composition:
    """Draws a picture and tells what is in it: place, creatures, their heads.

    Args:
      index: number of the picture; the class of its first creature is number ``index % 6``.
      split: "train" or "val", whose pictures differ.
      seed: of the whole data set.
      size: height and width in pixels.
    """
    stream = np.random.PCG64([seed, SPLITS.index(split), index])
    return compose(np.random.Generator(stream), CLASSES[index % len(CLASSES)], size)


def render(
    index: int, split: str, seed: int, size: int
) -> tuple[UInt8[np.ndarray, "{size} {size} 3"], UInt8[np.ndarray, "{size} {size}"]]:
    """Draws a picture, the same on every machine: RGB image and mask.

    The mask holds 0 for background and 1 + the number of the class in `CLASSES`; it is exact: a
    pixel belongs to the figure that is seen at its centre. Arguments as of `composition`.
    """
    drawn = composition(index, split, seed, size)
    return drawn.image, drawn.mask


@dataclasses.dataclass(frozen=True)
class _Options:
    split: str
    images: int
    seed: int
    size: int


class Shapes(RecordBuilder):
    """A split as a TFDS builder."""

    def __init__(self, options: _Options, **keywords):
        self.options = options
        described = json.dumps([_EDITION, dataclasses.asdict(options)], sort_keys=True)
        super().__init__(
            split=options.split,
            fingerprint=hashlib.sha256(described.encode()).hexdigest(),
            ids=[f"{options.split}_{index:05d}" for index in range(options.images)],
            classes=CLASSES,
            masks=True,
            **keywords,
        )

    def records(self, positions: range) -> Iterator[Record]:
        """Draws the pictures at `positions`."""
        options = self.options
        for index in positions:
            image, mask = render(index, options.split, options.seed, options.size)
            label = np.zeros(len(CLASSES), np.float32)
            label[np.unique(mask[mask > 0]) - 1] = 1.0
            yield Record(
                id=self.ids[index],
                # Noise leaves nothing to match, so Huffman coding alone is smaller and faster.
                image=_png(image[..., ::-1], cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY),
                size=(options.size, options.size),
                label=label,
                segmentation=_png(mask, cv2.IMWRITE_PNG_STRATEGY_DEFAULT),
            )


def open_source(data: ConfigDict, split: str) -> Source:
    """The records of `split`, drawn on first use (some seconds).

    Args:
      data: `train_images` and `val_images` (sizes of the splits), `seed`, `size` (pixels) and
        `data_dir`, each with a default.
      split: "train" or "val".

    Raises:
      UserError: no such split, or an option out of its range.
    """
    return prepare(make_builder(data, split))


def make_builder(data: ConfigDict, split: str) -> Shapes:
    """The builder of `split`; nothing is drawn yet. Arguments and errors as of `open_source`."""
    if split not in SPLITS:
        raise UserError(
            f"expected a split of the built-in data ({', '.join(SPLITS)}), found {split!r}:"
            " change the stage's split"
        )
    options = _Options(
        split,
        images=_whole(data, f"{split}_images", {"train": 800, "val": 200}[split], 1, 10**6),
        seed=_whole(data, "seed", 0, 0, 2**32 - 1),
        size=_whole(data, "size", 128, 32, 1024),
    )
    return Shapes(options, folder=prepared_root(data))


def _whole(data: ConfigDict, name: str, default: int, least: int, most: int) -> int:
    value = data.get(name, default)
    if not isinstance(value, int) or not least <= value <= most:
        raise UserError(
            f"expected a whole number from {least} to {most}, found {value!r}: set data.{name}"
        )
    return value


def _png(pixels: np.ndarray, strategy: int) -> bytes:
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, strategy]
    done, encoded = cv2.imencode(".png", pixels, settings)
    if not done:
        raise ValueError(f"OpenCV could not write an image of shape {pixels.shape}")
    return encoded.tobytes()
