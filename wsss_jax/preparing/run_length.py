"""Decodes the run-length encoded masks of COCO, and fills polygons as COCO's own tools do.

Pixels are counted down the columns, from left to right. Runs of background and object alternate and
begin with the background.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

Mask = Bool[np.ndarray, "h w"]

_FINER = 5  # COCO draws the edges of polygons on a grid of fifths of pixels
_MOST_BITS = 70  # of a number in compressed runs
_LONGEST = 400  # the outline of a polygon, in heights and widths of the image


def decode_runs(counts: Sequence[int] | str | bytes, height: int, width: int) -> Mask:
    """Decodes a mask of runs, either numbers or COCO's compressed text.

    Raises:
      ValueError: the runs are not those of a mask of this size.
    """
    if isinstance(counts, str | bytes):
        runs = _uncompressed(counts.encode() if isinstance(counts, str) else counts)
    else:
        runs = [int(count) for count in counts]
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"expected runs of {height * width} pixels, found {sum(runs)}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _uncompressed(text: bytes) -> list[int]:
    """Returns the runs of compressed text.

    A number has groups of five bits, the lowest first, each in a character from ``0`` on; the sixth
    bit says that another group follows, and the last group's fifth bit is the sign. From the fourth
    number on, it is the difference to the number before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        group = character - ord("0")
        if not 0 <= group < 64:
            raise ValueError(f"expected compressed runs, found the character {chr(character)!r}")
        value |= (group & 31) << shift
        shift += 5
        if shift > _MOST_BITS:
            raise ValueError("expected compressed runs, found a number of too many digits")
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("expected compressed runs, found a number without its end")
    return runs


def fill_polygon(corners: Sequence[int | float], height: int, width: int) -> Mask:
    """Fills a polygon.

    Its edges are drawn on a grid of fifths of pixels. Where an edge crosses the middle of a column,
    everything below it in the column is inverted. Pixels inside are inverted an odd number of
    times.

    Args:
      corners: x and y of each corner in turn, in pixels.
      height: the height of the mask.
      width: the width of the mask.

    Raises:
      ValueError: a corner is not a number, or the outline is far longer than that of any object.
    """
    points = np.asarray(corners, np.float64).reshape(-1, 2)
    outline = np.abs(np.diff(points, axis=0, append=points[:1])).max(1).sum()
    if not outline <= _LONGEST * (height + width):  # which NaN is not, either
        raise ValueError(f"expected corners in the image, found an outline of {outline:g} pixels")
    fine = np.trunc(_FINER * points + 0.5).astype(np.int64)
    parts = [_edge(a, b) for a, b in zip(fine, np.roll(fine, -1, axis=0), strict=True)]
    x, y = np.concatenate(parts).T
    steps = np.flatnonzero(np.diff(x))
    column = np.minimum(x[steps], x[steps + 1])
    # A smaller y is taken where an edge goes on in the next column.
    row = np.minimum(y[steps], y[steps + 1])
    middle = _FINER // 2
    crossed = (column - middle) % _FINER == 0
    column, row = (column[crossed] - middle) // _FINER, row[crossed]
    inside = (column >= 0) & (column < width)
    row = np.clip(-((middle - row) // _FINER), 0, height)
    starts = (column * height + row)[inside]
    inversions = np.bincount(starts, minlength=height * width + 1)[: height * width]
    return (np.cumsum(inversions) % 2 == 1).reshape(width, height).T


def _edge(a: Int64[np.ndarray, " 2"], b: Int64[np.ndarray, " 2"]) -> Int64[np.ndarray, "n 2"]:
    """Returns the points of an edge from a to b, one for each step along its longer side."""
    across, down = np.abs(b - a)
    axis = 0 if across >= down else 1
    length = int(max(across, down))
    # The same points come out in both directions.
    low, high = (a, b) if a[axis] <= b[axis] else (b, a)
    steps = np.arange(length + 1)
    slope: Float[np.ndarray, ""] = (high[1 - axis] - low[1 - axis]) / np.float64(max(length, 1))
    points = np.empty((length + 1, 2), np.int64)
    points[:, axis] = low[axis] + steps
    points[:, 1 - axis] = np.trunc(low[1 - axis] + slope * steps + 0.5)
    return points if a[axis] <= b[axis] else points[::-1]


def decode_segmentation(segmentation: Any, height: int, width: int) -> Mask:
    """Decodes the ``segmentation`` of an annotation: polygons, whose union it is, or runs.

    Raises:
      ValueError: it is neither, or belongs to another size.
      KeyError, TypeError, OverflowError: an entry is missing or of another type.
    """
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != [height, width]:
            raise ValueError(
                f"expected runs of {height} x {width}, found {segmentation.get('size')}"
            )
        return decode_runs(segmentation["counts"], height, width)
    if not isinstance(segmentation, list):
        raise ValueError(f"expected polygons or runs, found {type(segmentation).__name__}")
    mask = np.zeros((height, width), bool)
    for corners in segmentation:
        if len(corners) >= 6 and len(corners) % 2 == 0:
            mask |= fill_polygon(corners, height, width)
    return mask
