"""Paints a mask over its image and writes the names of its classes beneath."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from wsss_jax.viz.colors import class_colors, paint_mask
from wsss_jax.viz.fonts import font_for, readable

_PAPER, _INK = (250, 249, 245), (30, 28, 44)


def labeled_mask(
    image: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"], names: Sequence[str]
) -> UInt8[np.ndarray, "H w 3"]:
    """Returns the painted mask (see `paint_mask`) above a line that names each class in it.

    Args:
      image: the image in RGB.
      mask: class indices.
      names: the names of the foreground classes 1 to C.

    Returns:
      An RGB image that is as wide as `image`. Classes that cover more pixels come first; those for
      which there is no room are only counted. If no font of this machine can write a name, it
      is replaced by the class index, as in ``class 3``.
    """
    colors = class_colors(len(names))
    painted = paint_mask(image, mask, colors)
    counts = np.bincount(mask.ravel(), minlength=len(names) + 1)[1 : len(names) + 1]
    shown = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
    width = image.shape[1]
    size = min(max(width // 40, 12), 48)
    strip = Image.new("RGB", (width, 2 * size), _PAPER)
    draw = ImageDraw.Draw(strip)
    left = size // 2
    for place, index in enumerate(shown):
        rest = len(shown) - place
        name = readable(names[index], index + 1)
        font = _font(size, name)
        needed = 2 * size + draw.textlength(name, font)
        if left + needed + (0 if rest == 1 else 3 * size) > width:
            draw.text((left, size), f"+{rest}", _INK, _font(size), anchor="lm")
            break
        box = (left, size // 2 + 1, left + size - 1, size // 2 + size)
        draw.rectangle(box, tuple(map(int, colors[index + 1])))
        draw.text((left + 1.5 * size, size), name, _INK, font, anchor="lm")
        left += needed + size
    if not shown:
        draw.text((left, size), "background only", _INK, _font(size), anchor="lm")
    return np.concatenate([painted, np.asarray(strip)])


def _font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """Returns a font for the text, which `readable` made sure of."""
    found = font_for(text)
    assert found is not None
    return _opened(found[1], size)


@functools.lru_cache(maxsize=16)
def _opened(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
