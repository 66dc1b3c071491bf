"""Finds fonts for names in any script, where the common font lacks their characters."""

import functools
from collections.abc import Iterator

from matplotlib.font_manager import findfont, fontManager
from matplotlib.ft2font import FT2Font

from wsss_jax.viz.style import FONT


@functools.lru_cache(maxsize=4096)
def font_for(text: str) -> tuple[str, str] | None:
    """Returns family and file of a font that has all characters of `text`, or None.

    The common font comes first, and then those of this machine, ordered by their families.
    """
    needed = frozenset(text) - {" ", "\n", "\t"}
    lacking = needed - _characters(findfont(FONT))
    if not lacking:
        return FONT, findfont(FONT)
    return next((font for font in _installed() if needed <= _characters(font[1])), None)


def readable(name: str, index: int) -> str:
    """Returns the name of the class with this index, or ``class 3`` if no font can write it."""
    return name if font_for(name) else f"class {index}"


def _installed() -> Iterator[tuple[str, str]]:
    plain = {e.name: e.fname for e in fontManager.ttflist if e.style == "normal"}
    # Fonts of the last resort have a box for every character.
    yield from sorted(font for font in plain.items() if "last resort" not in font[0].lower())


@functools.cache
def _characters(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):  # the list of fonts may name files that are gone
        return frozenset()
