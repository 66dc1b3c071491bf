"""Writes masks as polygons in the format of COCO's object annotations.

A polygon follows the borders of pixels, whose corners have whole numbers as coordinates, so it
covers exactly the pixels of its region. COCO's polygons have no holes. Therefore, a region with
holes is cut into parts without any, which together cover it.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Int32, UInt8

from wsss_jax.data.masks import IGNORE
from wsss_jax.files import atomic_write

_RIGHT, _DOWN, _LEFT, _UP = range(4)
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # x, y


class Region(NamedTuple):
    """Connected pixels of a class.

    Attributes:
      index: the class index in the mask.
      area: the number of pixels.
      box: left, top, width and height.
      polygons: the corners x, y, x, y, … of each polygon.
    """

    index: int
    area: int
    box: tuple[int, int, int, int]
    polygons: list[list[float]]


def regions(mask: UInt8[np.ndarray, "h w"], tolerance: float = 0.0) -> Iterator[Region]:
    """Yields the regions of every class in a mask, whose pixels share an edge with another one.

    Args:
      mask: class indices; 0 is the background, and 255 is no class.
      tolerance: how far polygons may be from the borders of the region, in pixels. Above 0, they
        have fewer corners (Douglas and Peucker 1973).
    """
    for index in np.unique(mask):
        if index in (0, IGNORE):
            continue
        found = cv2.connectedComponentsWithStats((mask == index).view(np.uint8), connectivity=4)
        labels, stats = found[1], found[2]
        for number, (left, top, width, height, area) in enumerate(stats[1:].tolist(), 1):
            part = labels[top : top + height, left : left + width] == number
            polygons = [
                np.add(_simplified(corners, tolerance), (left, top)).ravel().tolist()
                for corners in _polygons(part)
            ]
            yield Region(int(index), area, (left, top, width, height), polygons)


def write_polygons(
    path: Path,
    images: Iterable[tuple[str, tuple[int, int], Sequence[Region]]],
    classes: Sequence[str],
    about: Mapping[str, Any],
) -> int:
    """Writes a file of COCO annotations, one for each region.

    Args:
      path: the file.
      images: the file name, the size (height, width) and the regions of each image.
      classes: the names of the foreground classes, whose ids are their indices in masks.
      about: the entry ``info``.

    Returns:
      The number of annotations.
    """
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, (height, width), found) in enumerate(images, 1):
        listed.append({"id": number, "file_name": name, "height": height, "width": width})
        for region in found:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": region.index,
                    "segmentation": region.polygons,
                    "area": region.area,
                    "bbox": list(region.box),
                    "iscrowd": 0,
                }
            )
    content = {
        "info": dict(about),
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes, 1)],
    }
    with atomic_write(path) as file:
        file.write(json.dumps(content).encode())
    return len(annotations)


def _simplified(corners: Int32[np.ndarray, "n 2"], tolerance: float) -> Int32[np.ndarray, "m 2"]:
    if not tolerance:
        return corners
    fewer = cv2.approxPolyDP(corners[:, None], tolerance, closed=True)[:, 0]
    return fewer if len(fewer) > 2 else corners


def _polygons(part: Bool[np.ndarray, "h w"]) -> Iterator[Int32[np.ndarray, "n 2"]]:
    """Yields polygons without holes that together cover connected pixels."""
    cuts = [0, *_cuts(part), len(part)]
    for start, stop in itertools.pairwise(cuts):
        strip = part[start:stop].view(np.uint8)
        count, labels = cv2.connectedComponents(strip, connectivity=4)
        for number in range(1, count):
            yield _outline(labels == number) + np.array((0, start), np.int32)


def _cuts(part: Bool[np.ndarray, "h w"]) -> list[int]:
    """Returns the rows before which a region is cut, so that every hole is open at a cut."""
    around = np.pad((~part).view(np.uint8), 1, constant_values=1)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(around, connectivity=8)
    outside = labels[0, 0]
    # The first row of a hole is counted from the row above the region, and the cut is behind it.
    tops = [int(stats[n, cv2.CC_STAT_TOP]) for n in range(1, count) if n != outside]
    return sorted({top for top in tops if top})


def _outline(part: Bool[np.ndarray, "h w"]) -> Int32[np.ndarray, "n 2"]:
    """Returns the corners x, y of the outline of connected pixels without holes, clockwise."""
    inside = np.pad(part, 1)
    here = inside[1:-1, 1:-1]
    ends: dict[tuple[int, int], list[int]] = {}
    count = 0
    for direction, neighbor, x, y in (
        (_RIGHT, inside[:-2, 1:-1], 0, 0),
        (_DOWN, inside[1:-1, 2:], 1, 0),
        (_LEFT, inside[2:, 1:-1], 1, 1),
        (_UP, inside[1:-1, :-2], 0, 1),
    ):
        rows, columns = np.nonzero(here & ~neighbor)
        count += len(rows)
        for at in zip((columns + x).tolist(), (rows + y).tolist(), strict=True):
            ends.setdefault(at, []).append(direction)
    at = min(ends, key=lambda place: place[::-1])
    direction = _RIGHT
    corners = []
    for _ in range(count):
        open_ones = ends[at]
        # Where two pixels touch at a corner alone, the outline turns to stay with the same one.
        turn = next(d for d in ((direction + k) % 4 for k in (1, 0, 3)) if d in open_ones)
        if turn != direction or not corners:
            corners.append(at)
        direction = turn
        open_ones.remove(direction)
        at = at[0] + _STEPS[direction][0], at[1] + _STEPS[direction][1]
    return np.array(corners, np.int32)
