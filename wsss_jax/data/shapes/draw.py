"""Drawing tools of the built-in data set: distance fields of two primitives, noise and painting.

They only use additions, multiplications, divisions, square roots and comparisons of float32 arrays,
and no sines, matrix products or rasterizers of a library. IEEE 754 fixes the results of these
operations to the last bit, so that an image has the same pixels on every machine.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

Color = tuple[int, int, int]
Plane = Float32[np.ndarray, "h w"]
Picture = Float32[np.ndarray, "3 h w"]  # RGB in 0 … 255, as planes because they broadcast fastest
Window = tuple[slice, slice]


class Limb(NamedTuple):
    """A stroke from one disc to another, such as a leg, or a horn if ``r1`` is near 0."""

    x0: float
    y0: float
    x1: float
    y1: float
    r0: float
    r1: float


class Oval(NamedTuple):
    """An ellipse whose axes are horizontal and vertical."""

    x: float
    y: float
    rx: float
    ry: float


Part = Limb | Oval
Box = tuple[float, float, float, float]  # left, top, right, low


@dataclass(frozen=True)
class Stamp:
    """A flat figure: parts and their colors in painting order, in the figure's own units."""

    parts: tuple[tuple[Part, Color], ...]

    @functools.cached_property
    def box(self) -> Box:
        """The smallest rectangle that contains the figure."""
        return box(part for part, _ in self.parts)


def clamp(values: np.ndarray) -> np.ndarray:
    """Clips values to 0 … 1."""
    return np.minimum(np.maximum(values, 0.0), 1.0)


def _to_limb(x, y, x0, y0, x1, y1, r0, r1):
    dx, dy = x1 - x0, y1 - y0
    length = 1.0 / (dx * dx + dy * dy + 1e-12)
    x, y = x - x0, y - y0
    along = clamp(x * (dx * length) + y * (dy * length))
    x, y = x - along * dx, y - along * dy
    return np.sqrt(x * x + y * y) - (r0 + along * (r1 - r0))


def _to_oval(x, y, center_x, center_y, rx, ry):
    x, y = (x - center_x) / rx, (y - center_y) / ry
    radius = np.maximum(np.sqrt(x * x + y * y), 1e-6)
    x, y = x / rx, y / ry
    return radius * (radius - 1.0) / np.maximum(np.sqrt(x * x + y * y), 1e-6)


def distance(part: Part, x: Plane, y: Plane) -> Plane:
    """Returns the signed distance of points to the edge of a part, in its units, negative inside.

    The distance is exact for straight limbs and for discs. Otherwise it is a first-order
    approximation near the edge.
    """
    return _to_limb(x, y, *part) if isinstance(part, Limb) else _to_oval(x, y, *part)


def distances(parts: Sequence[Part], x: Plane, y: Plane) -> Float32[np.ndarray, "p h w"]:
    """Returns `distance` to all parts at once, because on small windows the calls cost most."""
    found = np.empty((len(parts), *x.shape), np.float32)
    for kind, measure in ((Limb, _to_limb), (Oval, _to_oval)):
        rows = [row for row, part in enumerate(parts) if isinstance(part, kind)]
        if rows:
            columns = np.array([parts[row] for row in rows], np.float32).T[..., None, None]
            found[rows] = measure(x, y, *columns)
    return found


def smooth_union(first: Plane, second: Plane, blend: float) -> Plane:
    """Returns the union of two distance fields, rounded over a width of `blend` where they meet."""
    overlap = np.maximum(blend - np.abs(first - second), 0.0)
    return np.minimum(first, second) - overlap * overlap * (0.25 / blend)


@dataclass(frozen=True)
class Pose:
    """The pose of a figure: its center, pixels per unit, rotation in `degrees`, and flip."""

    x: float
    y: float
    scale: float
    degrees: int = 0
    flip: bool = False

    @functools.cached_property
    def turn(self) -> tuple[float, float]:
        """The cosine and sine of the rotation."""
        # Libraries disagree on the last digit of a sine, but not on the first six digits.
        angle = math.radians(self.degrees)
        return round(math.cos(angle), 6), round(math.sin(angle), 6)

    def local(self, area: "Window") -> tuple[Plane, Plane]:
        """Returns the pixel centers of a window in the coordinates of the figure."""
        cos, sin = self.turn
        side = -1.0 if self.flip else 1.0
        x, y = centers(area)
        x, y = (x - self.x) / self.scale, (y - self.y) / self.scale
        return x * (side * cos) + y * (side * sin), y * cos - x * sin

    def pixel(self, u: float, v: float) -> tuple[float, float]:
        """Converts a point of the figure to pixel coordinates."""
        cos, sin = self.turn
        u = -u if self.flip else u
        return self.x + self.scale * (u * cos - v * sin), self.y + self.scale * (u * sin + v * cos)

    def child(self, u: float, v: float, scale: float, degrees: int) -> "Pose":
        """Returns the pose of a part at (u, v) of this figure that is `scale` times as large."""
        x, y = self.pixel(u, v)
        return Pose(x, y, self.scale * scale, self.degrees + degrees, self.flip)


def box(parts: Iterable[Part]) -> Box:
    """Returns the smallest upright rectangle that contains the parts, in units of the figure."""
    sides = [
        (
            min(part.x0 - part.r0, part.x1 - part.r1),
            min(part.y0 - part.r0, part.y1 - part.r1),
            max(part.x0 + part.r0, part.x1 + part.r1),
            max(part.y0 + part.r0, part.y1 + part.r1),
        )
        if isinstance(part, Limb)
        else (part.x - part.rx, part.y - part.ry, part.x + part.rx, part.y + part.ry)
        for part in parts
    ]
    left, top, right, low = zip(*sides, strict=True)
    return min(left), min(top), max(right), max(low)


def window(area: Box, pose: Pose, margin: float, size: int) -> Window:
    """Returns the rows and columns of the image within `margin` pixels of a figure's rectangle."""
    left, top, right, low = area
    width, height = 0.5 * (right - left), 0.5 * (low - top)
    cos, sin = (abs(part) * pose.scale for part in pose.turn)
    x, y = pose.pixel(left + width, top + height)
    return (
        _span(y, sin * width + cos * height + margin, size),
        _span(x, cos * width + sin * height + margin, size),
    )


def _span(center: float, radius: float, size: int) -> slice:
    start = min(max(int(center - radius), 0), size)
    return slice(start, max(min(int(center + radius) + 1, size), start))


def hull(windows: Iterable[Window]) -> Window:
    """Returns the smallest window that contains all `windows`."""
    rows, columns = zip(*windows, strict=True)
    return (
        slice(min(span.start for span in rows), max(span.stop for span in rows)),
        slice(min(span.start for span in columns), max(span.stop for span in columns)),
    )


def within(inner: Window, outer: Window) -> Window:
    """Returns a window in the coordinates of another one that contains it."""
    rows, columns = (
        slice(part.start - whole.start, part.stop - whole.start)
        for part, whole in zip(inner, outer, strict=True)
    )
    return rows, columns


def centers(area: Window) -> tuple[Float32[np.ndarray, "1 w"], Float32[np.ndarray, "h 1"]]:
    """Returns the coordinates x and y of the pixel centers of a window."""
    rows, columns = area
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5
    y = np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5
    return x[None], y[:, None]


def coverage(depth: Float32[np.ndarray, "*p h w"]) -> Float32[np.ndarray, "*p h w"]:
    """Returns the share of a pixel that a shape covers, from the signed distance in pixels.

    The share is at least one half exactly where the distance is not positive. So the shape makes
    up most of the color wherever the mask is inside.
    """
    return clamp(0.5 - depth)


def ink(color: Color) -> Float32[np.ndarray, "3 1 1"]:
    """Returns a color that broadcasts over a picture."""
    return np.array(color, np.float32)[:, None, None]


def blend(under: Picture, over: Float32[np.ndarray, "3 #h #w"], alpha: Plane) -> None:
    """Paints `over` onto `under`, in place."""
    under += (over - under) * alpha


def paint_stamp(picture: Picture, stamp: Stamp, pose: Pose) -> None:
    """Paints a figure of flat parts, in place."""
    size = picture.shape[-1]
    area = window(stamp.box, pose, 1.0, size)
    view = picture[:, area[0], area[1]]
    depths = distances([part for part, _ in stamp.parts], *pose.local(area))
    alphas = coverage(depths * pose.scale)
    for (_, color), alpha in zip(stamp.parts, alphas, strict=True):
        blend(view, ink(color), alpha)


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draws a number between `low` and `high`."""
    return low + (high - low) * float(rng.random())


def choice(rng: np.random.Generator, items: Sequence):
    """Draws one of the items."""
    return items[int(rng.integers(len(items)))]


def _knots(count: int, cell: float) -> tuple[np.ndarray, Float32[np.ndarray, " n"]]:
    position = (np.arange(count, dtype=np.float32) + 0.5) / cell
    index = position.astype(np.int64)
    part = position - index.astype(np.float32)
    return index, part * part * (3.0 - 2.0 * part)


def noise_line(rng: np.random.Generator, count: int, cell: float) -> Float32[np.ndarray, " n"]:
    """Returns smooth noise in -1 … 1 along `count` pixels; a wave is about two cells long."""
    index, part = _knots(count, cell)
    lattice = rng.random(index[-1] + 2, dtype=np.float32) * 2.0 - 1.0
    return lattice[index] * (1.0 - part) + lattice[index + 1] * part


def noise_plane(
    rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float]
) -> Plane:
    """Returns smooth noise in -1 … 1 over rows × columns; `cell` is (height, width) in pixels."""
    row, down = _knots(shape[0], cell[0])
    column, across = _knots(shape[1], cell[1])
    lattice = rng.random((row[-1] + 2, column[-1] + 2), dtype=np.float32) * 2.0 - 1.0
    lines = lattice[row] * (1.0 - down)[:, None] + lattice[row + 1] * down[:, None]
    return lines[:, column] * (1.0 - across) + lines[:, column + 1] * across
