"""The creatures of the built-in data set: bodies and coats that classes share, and their heads."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from wsss_jax.data.shapes.draw import (
    Color,
    Limb,
    Part,
    Picture,
    Plane,
    Pose,
    Window,
    blend,
    box,
    clamp,
    coverage,
    distance,
    distances,
    hull,
    ink,
    noise_plane,
    smooth_union,
    uniform,
    window,
    within,
)
from wsss_jax.data.shapes.heads import BALL, HEADS, Head

# --- Bodies ------------------------------------------------------------------------------------
# Coordinates are in units of the creature's length, from tail to head, with y pointing down.


@dataclass(frozen=True)
class Body:
    """Limbs that merge smoothly, and the place, radius and tilt of the head."""

    limbs: tuple[Part, ...]
    head: tuple[float, float, float, int]

    def crown(self, pose: Pose) -> Pose:
        """Returns the pose of the head, whose unit is its radius."""
        x, y, radius, tilt = self.head
        return pose.child(x, y, HEAD_SIZE * radius, tilt)


def _walker(rng: np.random.Generator) -> Body:
    legs = []
    for x in (-0.3, -0.2, 0.14, 0.24):
        x += uniform(rng, -0.03, 0.03)
        foot = x + uniform(rng, -0.09, 0.09)
        legs.append(Limb(x, 0.08, foot, uniform(rng, 0.38, 0.44), 0.075, 0.055))
    lift = uniform(rng, -0.35, 0.1)
    tail = (
        Limb(-0.36, -0.06, -0.52, -0.06 + 0.4 * lift, 0.05, 0.04),
        Limb(-0.52, -0.06 + 0.4 * lift, -0.56, -0.12 + lift, 0.04, 0.05),
    )
    trunk = (Limb(-0.27, 0.0, 0.2, -0.02, 0.17, 0.16), Limb(0.22, -0.04, 0.36, -0.2, 0.12, 0.08))
    return Body((*trunk, *legs, *tail), (0.39, -0.27, 0.115, int(rng.integers(-8, 9))))


def _stander(rng: np.random.Generator) -> Body:
    limbs: list[Part] = [Limb(0.0, -0.12, 0.0, 0.14, 0.13, 0.18)]
    for side in (-1.0, 1.0):
        elbow = (side * uniform(rng, 0.24, 0.32), uniform(rng, -0.12, 0.12))
        hand = (side * uniform(rng, 0.3, 0.46), uniform(rng, -0.34, 0.22))
        limbs.append(Limb(side * 0.1, -0.14, *elbow, 0.06, 0.055))
        limbs.append(Limb(*elbow, *hand, 0.055, 0.06))
        foot = side * uniform(rng, 0.1, 0.2)
        limbs.append(Limb(side * 0.1, 0.2, foot, 0.48, 0.085, 0.065))
        limbs.append(Limb(foot, 0.49, foot + side * 0.08, 0.5, 0.055, 0.05))
    return Body(tuple(limbs), (0.0, -0.35, 0.118, int(rng.integers(-10, 11))))


def _crawler(rng: np.random.Generator) -> Body:
    amplitude, phase = uniform(rng, 0.09, 0.17), int(rng.integers(4))
    wave = (0.0, 0.75, 1.0, 0.75, 0.0, -0.75, -1.0, -0.75)
    x = [-0.58 + 0.105 * step for step in range(10)]
    y = [amplitude * wave[(step + 2 * phase) % 8] for step in range(10)]
    thick = [0.03 + 0.0095 * step for step in range(10)]
    limbs = [
        Limb(x[step], y[step], x[step + 1], y[step + 1], thick[step], thick[step + 1])
        for step in range(9)
    ]
    return Body(tuple(limbs), (x[9] + 0.06, y[9] - 0.05, 0.105, int(rng.integers(-12, 13))))


def _glider(rng: np.random.Generator) -> Body:
    limbs: list[Part] = [Limb(-0.2, 0.02, 0.16, -0.02, 0.1, 0.13)]
    sweep = uniform(rng, -0.16, 0.02)
    for side in (-1.0, 1.0):
        span = side * uniform(rng, 0.4, 0.5)
        limbs.append(Limb(0.06, side * 0.06, 0.06 + sweep, span, 0.12, 0.045))
        limbs.append(Limb(-0.04, side * 0.06, sweep - 0.06, 0.8 * span, 0.1, 0.04))
        limbs.append(Limb(-0.24, 0.02, -0.5, side * uniform(rng, 0.08, 0.18), 0.07, 0.045))
    return Body(tuple(limbs), (0.32, -0.05, 0.115, int(rng.integers(-10, 11))))


BODIES = {"walker": _walker, "stander": _stander, "crawler": _crawler, "glider": _glider}


def headless(rng: np.random.Generator) -> Body:
    """Draws a piece of stuffed cloth, which has the coat and limbs of a body but no head."""
    limbs = []
    x, y = -0.3, 0.0
    for _ in range(int(rng.integers(2, 5))):
        u, v = x + uniform(rng, 0.12, 0.3), y + uniform(rng, -0.16, 0.16)
        limbs.append(Limb(x, y, u, v, uniform(rng, 0.07, 0.16), uniform(rng, 0.07, 0.16)))
        x, y = u, v
    return Body(tuple(limbs), (0.0, 0.0, 1.0, 0))


# --- Coats -------------------------------------------------------------------------------------
PALETTES: tuple[tuple[Color, Color], ...] = (
    ((206, 128, 84), (158, 82, 54)),  # clay
    ((92, 158, 164), (52, 112, 128)),  # teal
    ((160, 122, 186), (112, 78, 146)),  # plum
    ((214, 176, 92), (170, 128, 56)),  # mustard
    ((126, 142, 176), (84, 98, 136)),  # slate
    ((214, 136, 150), (172, 88, 112)),  # rose
)
PATTERNS = ("stripes", "spots", "scales", "patches", "wool", "rings")


def pattern(rng: np.random.Generator, name: str, x: Plane, y: Plane, scale: float) -> Plane:
    """Returns how much of a coat's second color is visible, 0 … 1.

    Args:
      rng: the generator that draws the width and noise of the pattern.
      name: one of `PATTERNS`.
      x: horizontal coordinates of the pixels in units of the creature.
      y: vertical coordinates of the pixels in units of the creature.
      scale: pixels per unit.
    """

    def noise(cell: float) -> Plane:
        return noise_plane(rng, (len(x), x.shape[1]), (cell * scale, cell * scale))

    cell = uniform(rng, 0.09, 0.14)
    if name == "wool":
        return clamp(0.4 + 0.5 * noise(0.045) + 0.3 * noise(0.1))
    if name == "patches":
        return clamp(0.5 + 5.0 * noise(0.17))
    if name == "stripes":
        u = (x + 0.25 * y + 0.03 * noise(0.15)) / cell
    elif name == "rings":
        u = np.sqrt(x * x + y * y) / cell
    else:
        row = np.floor(y / cell)
        u = x / cell + 0.5 * row
        u, v = u - np.floor(u) - 0.5, y / cell - row - 0.5
        if name == "spots":
            return clamp((0.3 - np.sqrt(u * u + v * v)) * 8.0 + 0.5)
        v = v + 0.5  # scales are arcs that hang from each row
        return clamp((np.sqrt(u * u + v * v) - 0.42) * 5.0 + 0.5)
    u = np.abs(u - np.floor(u) - 0.5)
    return clamp((u - 0.25) * 9.0 + 0.5)


@dataclass(frozen=True)
class Coat:
    """The colors and pattern that cover a whole creature, including its head."""

    palette: int
    pattern: str


# --- Creatures ---------------------------------------------------------------------------------
_BLEND = 0.07  # how softly limbs meet, in units of the creature
HEAD_SIZE = 1.3  # factor on the radius of a head: small enough to be a part, but easy to learn
_NECK = 0.3  # how softly the head sits on its neck, in units of the head's radius
_SHADOW = 0.05  # how far around a creature the distance to it is known, in sizes of the image
_FAR = 1e3


@dataclass(frozen=True)
class Toy:
    """A creature in its window of the image.

    ``depth`` is the signed distance to its outline in pixels, which is known up to some pixels
    outside. ``body`` marks the pixels that belong to it, including its head, and ``head`` marks
    those of its head.
    """

    area: Window
    color: Picture
    depth: Plane
    body: Bool[np.ndarray, "h w"]
    head: Bool[np.ndarray, "h w"]

    def cast(self, picture: Picture) -> None:
        """Paints the creature, and its soft shadow toward the lower right, in place."""
        size = picture.shape[-1]
        rows, columns = self.area
        shift = -(-size // 42)
        shadow = picture[
            :, rows.start + shift : rows.stop + shift, columns.start + shift : columns.stop + shift
        ]
        depth = self.depth[: shadow.shape[1], : shadow.shape[2]]
        shadow *= 1.0 - 0.4 * clamp(0.6 - depth / (0.055 * size))
        blend(picture[:, rows, columns], self.color, coverage(self.depth))


def build(
    rng: np.random.Generator, name: str | None, body: Body, coat: Coat, pose: Pose, size: int
) -> Toy:
    """Draws a creature of a class, or a headless thing when `name` is None."""
    margin = _SHADOW * size
    flow = _BLEND * pose.scale
    areas = [window(box([limb]), pose, flow + margin, size) for limb in body.limbs]
    crown = body.crown(pose)
    top = window(HEADS[name].box, crown, margin, size) if name else areas[0]
    whole = hull([*areas, top])
    x, y = pose.local(whole)
    depth = np.full_like(x, _FAR)
    for limb, area in zip(body.limbs, areas, strict=True):
        near = within(area, whole)
        piece = distance(limb, x[near], y[near]) * pose.scale
        depth[near] = smooth_union(depth[near], piece, flow)
    color = _dye(rng, coat, x, y, pose.scale)
    head = np.full_like(depth, _FAR)
    if name:
        rows, columns = within(top, whole)
        views = color[:, rows, columns], depth[rows, columns], head[rows, columns]
        _add_head(HEADS[name], crown, *crown.local(top), *views)
    _mold(color, depth, 0.09 * pose.scale)
    return Toy(whole, color, depth, depth <= 0.0, head <= 0.0)


def _dye(rng: np.random.Generator, coat: Coat, x: Plane, y: Plane, scale: float) -> Picture:
    tone = uniform(rng, 0.9, 1.08)
    first, second = (ink(color) * np.float32(tone) for color in PALETTES[coat.palette])
    return first + (second - first) * pattern(rng, coat.pattern, x, y, scale)


def _add_head(
    head: Head, pose: Pose, x: Plane, y: Plane, color: Picture, depth: Plane, head_depth: Plane
) -> None:
    """Adds a head to the colors and depth of a body and fills in the head's depth, in place."""
    stamps = head.behind.parts + head.front.parts
    ball, *pieces = distances([BALL, *(part for part, _ in stamps)], x, y) * pose.scale
    depth[:] = smooth_union(depth, ball, _NECK * pose.scale)
    head_depth[:] = ball
    seen = 1.0 - coverage(depth)
    for number, ((_, paint), piece) in enumerate(zip(stamps, pieces, strict=True)):
        # The part is painted slightly too wide; what lies beyond the outline is cut off with it.
        share = coverage(piece - 0.6)
        if number < len(head.behind.parts):
            share *= seen
        blend(color, ink(paint), share)
        np.minimum(head_depth, piece, out=head_depth)
    np.minimum(depth, head_depth, out=depth)


def _mold(color: Picture, depth: Plane, thickness: float) -> None:
    """Shades a figure like clay, in place: lit from the upper left and darker at its rim."""
    rise = clamp(-depth / thickness)
    slope = np.zeros_like(depth)
    slope[1:-1] -= 0.35 * (depth[2:] - depth[:-2])
    slope[:, 1:-1] -= 0.25 * (depth[:, 2:] - depth[:, :-2])
    color *= 0.8 + 0.24 * rise * (2.0 - rise) + 0.22 * np.clip(slope, -1.0, 1.0) * (1.0 - rise)
