"""Draws the images of the built-in data set `shapes`: creatures in landscapes, with exact masks.

The data set is a test bed for weakly supervised segmentation that needs no download. It is built to
have what makes photographs hard:

- Only the head, about a quarter of what is visible, tells the class. Every class comes with every
  body and every coat, although pairs of classes prefer the same coats, as cats and dogs do. So a
  classifier does not need the body, and its class activation maps hardly cover it.
- Every class has a home (a frog's is the reef) where it is nearly three times as frequent as in
  any other place, so a classifier may use the place too.
- One to three creatures, of one class or of several, hide parts of each other. Their lengths
  differ by more than a factor of two, and they are rotated, flipped, cut by the border and lit
  from one side. Things in the same coats but without a head are background.

The coat covers body and head alike, so a method that spreads a map over similar pixels has
something to spread over.
"""

import numpy as np
from jaxtyping import UInt8

from wsss_jax.data.shapes.compose import Composition, compose
from wsss_jax.data.shapes.heads import CLASSES

__all__ = ["CLASSES", "EDITION", "SPLITS", "composition", "render"]

SPLITS = ("train", "val")
EDITION = 3
"""The edition of the images, which increases by one whenever the drawing changes."""


def composition(index: int, split: str, seed: int, size: int) -> Composition:
    """Draws an image and returns it with its place, its creatures and their heads.

    Args:
      index: the number of the image; its first creature has the class ``index % 6``.
      split: "train" or "val", whose images differ.
      seed: the seed of the whole data set.
      size: the height and width in pixels.
    """
    stream = np.random.PCG64([seed, SPLITS.index(split), index])
    return compose(np.random.Generator(stream), CLASSES[index % len(CLASSES)], size)


def render(
    index: int, split: str, seed: int, size: int
) -> tuple[UInt8[np.ndarray, "{size} {size} 3"], UInt8[np.ndarray, "{size} {size}"]]:
    """Draws an RGB image and its mask, which are the same on every machine.

    The mask holds 0 for the background and 1 + the position of a class in `CLASSES`. It is exact: a
    pixel belongs to the figure that is visible at its center.

    Args:
      index: the number of the image; its first creature has the class ``index % 6``.
      split: "train" or "val", whose images differ.
      seed: the seed of the whole data set.
      size: the height and width in pixels.
    """
    drawn = composition(index, split, seed, size)
    return drawn.image, drawn.mask
