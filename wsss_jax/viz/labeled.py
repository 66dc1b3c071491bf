"""Paints a mask over its image and writes the names of its classes beneath."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.font_manager import findfont, get_font
from PIL import Image, ImageDraw, ImageFont

from wsss_jax.viz.colors import class_colors, paint_mask
from wsss_jax.viz.style import FONT

_PAPER, _INK = (250, 249, 245), (30, 28, 44)


def labeled_mask(
    image: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"], names: Sequence[str]
) -> UInt8[np.ndarray, "H w 3"]:
    """Returns the painted mask (see `paint_mask`) above a line that names each class in it.

    Args:
      image: the image in RGB.
      mask: class indices.
      names: the names of the foreground classes 1 to C. In place of a name with letters that the
        font lacks, such as Chinese ones, stands ``class`` and the index.

    Returns:
      An RGB image that is as wide as `image`. Classes that cover more pixels come first; those for
      which there is no room are only counted.
    """
    colors = class_colors(len(names))
    painted = paint_mask(image, mask, colors)
    counts = np.bincount(mask.ravel(), minlength=len(names) + 1)[1 : len(names) + 1]
    shown = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
    width = image.shape[1]
    size = min(max(width // 40, 12), 48)
    strip = Image.new("RGB", (width, 2 * size), _PAPER)
    draw, font = ImageDraw.Draw(strip), _font(size)
    captions = [_caption(name, index) for index, name in enumerate(names, 1)]
    left = size // 2
    for place, index in enumerate(shown):
        rest = len(shown) - place
        needed = 2 * size + draw.textlength(captions[index], font)
        if left + needed + (0 if rest == 1 else 3 * size) > width:
            draw.text((left, size), f"+{rest}", _INK, font, anchor="lm")
            break
        box = (left, size // 2 + 1, left + size - 1, size // 2 + size)
        draw.rectangle(box, tuple(map(int, colors[index + 1])))
        draw.text((left + 1.5 * size, size), captions[index], _INK, font, anchor="lm")
        left += needed + size
    if not shown:
        draw.text((left, size), "background only", _INK, font, anchor="lm")
    return np.concatenate([painted, np.asarray(strip)])


def _caption(name: str, index: int) -> str:
    """Returns the name of a class, or its mask index where the font lacks letters of the name."""
    return name if all(ord(letter) in _letters() for letter in name) else f"class {index}"


@functools.lru_cache(maxsize=1)
def _letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


@functools.lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont(FONT), size)
