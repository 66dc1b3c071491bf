"""Pictures of the built-in data set `shapes`: molded creatures in landscapes, with exact masks.

A test bed for weakly supervised segmentation that needs no download. What makes photographs hard
is here by construction:

- Only the head (about a quarter of what is seen) tells a class. Every class comes with every body
  and every coat, though two classes each prefer the same coats, as cats and dogs do. So a
  classifier need not look at the body, and its class activation map does so little.
- Every class has a home (a frog's is the reef) where it is found nearly three times as often as in
  any other place, so a classifier may look at the place too.
- One to three creatures, of several classes or of one, hide parts of each other; their lengths
  differ by more than a factor of two; they are turned, flipped, cut by the border, lit from a
  side. Things in the same coats but without a head are background.

The coat runs over body and head alike, so a method that spreads a map over pixels that look alike
has something to spread over.
"""

import numpy as np
from jaxtyping import UInt8

from wsss_jax.data.shapes.compose import Composition, compose
from wsss_jax.data.shapes.heads import CLASSES

__all__ = ["CLASSES", "EDITION", "SPLITS", "composition", "render"]

SPLITS = ("train", "val")
EDITION = 3
"""Of the pictures: one more whenever the drawing changes."""


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
    pixel belongs to the figure that is seen at its center. Arguments as of `composition`.
    """
    drawn = composition(index, split, seed, size)
    return drawn.image, drawn.mask
