"""The heads of the creatures in the built-in data set, the small part that tells their class.

Coordinates are in units of the head's radius, with y pointing down. A head is a ball in the colors
of the coat, which do not tell the class, with these parts behind it and in front of it.
"""

import functools
from dataclasses import dataclass

from wsss_jax.data.shapes.draw import Box, Color, Limb, Oval, Stamp, box

BALL = Oval(0.0, 0.0, 1.0, 1.0)
_INK: Color = (34, 30, 40)
_CREAM: Color = (250, 244, 226)


@dataclass(frozen=True)
class Head:
    """The parts behind the ball of a head and in front of it."""

    behind: Stamp
    front: Stamp

    @functools.cached_property
    def box(self) -> Box:
        """The smallest rectangle that contains the head."""
        return box((BALL, *(part for part, _ in self.behind.parts + self.front.parts)))


HEADS: dict[str, Head] = {
    "owl": Head(
        Stamp(
            (
                (Limb(-0.5, -0.6, -0.85, -1.35, 0.32, 0.04), (126, 84, 50)),
                (Limb(0.5, -0.6, 0.85, -1.35, 0.32, 0.04), (126, 84, 50)),
            )
        ),
        Stamp(
            (
                (Oval(-0.43, -0.12, 0.5, 0.5), (255, 206, 44)),
                (Oval(0.43, -0.12, 0.5, 0.5), (255, 206, 44)),
                (Oval(-0.4, -0.1, 0.25, 0.25), _INK),
                (Oval(0.4, -0.1, 0.25, 0.25), _INK),
                (Limb(0.0, 0.2, 0.0, 0.75, 0.2, 0.03), (240, 130, 36)),
            )
        ),
    ),
    "fox": Head(
        Stamp(
            (
                (Limb(-0.55, -0.5, -0.85, -1.4, 0.42, 0.03), (232, 104, 30)),
                (Limb(0.55, -0.5, 0.85, -1.4, 0.42, 0.03), (232, 104, 30)),
                (Limb(-0.75, -1.05, -0.86, -1.42, 0.16, 0.02), _INK),
                (Limb(0.75, -1.05, 0.86, -1.42, 0.16, 0.02), _INK),
            )
        ),
        Stamp(
            (
                (Oval(0.0, -0.35, 0.85, 0.55), (232, 104, 30)),
                (Oval(-0.42, 0.38, 0.46, 0.44), _CREAM),
                (Oval(0.42, 0.38, 0.46, 0.44), _CREAM),
                (Oval(-0.38, -0.2, 0.14, 0.18), _INK),
                (Oval(0.38, -0.2, 0.14, 0.18), _INK),
                (Oval(0.0, 0.5, 0.24, 0.18), _INK),
            )
        ),
    ),
    "panda": Head(
        Stamp(
            (
                (Oval(-0.78, -0.78, 0.45, 0.45), _INK),
                (Oval(0.78, -0.78, 0.45, 0.45), _INK),
            )
        ),
        Stamp(
            (
                (Oval(0.0, 0.0, 0.94, 0.9), _CREAM),
                (Limb(-0.36, -0.14, -0.5, 0.14, 0.24, 0.22), _INK),
                (Limb(0.36, -0.14, 0.5, 0.14, 0.24, 0.22), _INK),
                (Oval(-0.36, -0.08, 0.09, 0.09), _CREAM),
                (Oval(0.36, -0.08, 0.09, 0.09), _CREAM),
                (Oval(0.0, 0.42, 0.2, 0.13), _INK),
            )
        ),
    ),
    "frog": Head(
        Stamp(
            (
                (Oval(-0.6, -0.8, 0.46, 0.46), (86, 186, 60)),
                (Oval(0.6, -0.8, 0.46, 0.46), (86, 186, 60)),
            )
        ),
        Stamp(
            (
                (Oval(-0.6, -0.82, 0.32, 0.32), _CREAM),
                (Oval(0.6, -0.82, 0.32, 0.32), _CREAM),
                (Oval(-0.58, -0.8, 0.16, 0.2), _INK),
                (Oval(0.58, -0.8, 0.16, 0.2), _INK),
                (Oval(0.0, 0.3, 0.82, 0.4), (86, 186, 60)),
                (Oval(0.0, 0.34, 0.62, 0.2), (216, 60, 84)),
            )
        ),
    ),
    "dragon": Head(
        Stamp(
            (
                (Limb(-0.45, -0.6, -1.0, -1.3, 0.22, 0.03), _CREAM),
                (Limb(0.45, -0.6, 1.0, -1.3, 0.22, 0.03), _CREAM),
                (Limb(0.0, -0.7, 0.0, -1.5, 0.34, 0.03), (206, 30, 48)),
                (Limb(-0.5, 0.5, -1.15, 0.85, 0.26, 0.03), (206, 30, 48)),
                (Limb(0.5, 0.5, 1.15, 0.85, 0.26, 0.03), (206, 30, 48)),
            )
        ),
        Stamp(
            (
                (Oval(0.0, -0.42, 0.4, 0.42), (206, 30, 48)),
                (Oval(-0.5, -0.12, 0.24, 0.2), (250, 226, 60)),
                (Oval(0.5, -0.12, 0.24, 0.2), (250, 226, 60)),
                (Oval(-0.48, -0.12, 0.08, 0.18), _INK),
                (Oval(0.48, -0.12, 0.08, 0.18), _INK),
                (Oval(0.0, 0.5, 0.6, 0.36), (206, 30, 48)),
                (Oval(-0.2, 0.42, 0.09, 0.09), _INK),
                (Oval(0.2, 0.42, 0.09, 0.09), _INK),
            )
        ),
    ),
    "unicorn": Head(
        Stamp(
            (
                (Oval(-0.75, -0.5, 0.5, 0.5), (206, 84, 190)),
                (Oval(-0.98, 0.15, 0.42, 0.46), (120, 120, 226)),
                (Limb(0.5, -0.6, 0.78, -1.1, 0.24, 0.04), _CREAM),
            )
        ),
        Stamp(
            (
                (Oval(-0.35, -0.72, 0.5, 0.34), (240, 104, 168)),
                (Limb(0.1, -0.8, 0.28, -1.75, 0.2, 0.02), (255, 214, 70)),
                (Oval(0.38, 0.48, 0.52, 0.4), (252, 214, 222)),
                (Oval(-0.08, -0.1, 0.15, 0.2), _INK),
                (Oval(0.56, -0.1, 0.15, 0.2), _INK),
                (Oval(0.3, 0.46, 0.07, 0.1), (196, 110, 136)),
                (Oval(0.58, 0.46, 0.07, 0.1), (196, 110, 136)),
            )
        ),
    ),
}

CLASSES: tuple[str, ...] = tuple(HEADS)
