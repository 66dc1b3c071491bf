"""The six places of the built-in data set, with sky, ground and clutter that has no class."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from wsss_jax.data.shapes.draw import (
    Color,
    Limb,
    Oval,
    Picture,
    Pose,
    Stamp,
    blend,
    choice,
    clamp,
    coverage,
    ink,
    noise_line,
    noise_plane,
    paint_stamp,
    uniform,
)

# Clutter stands on its origin (0, 0), with y pointing down.
_PINE = Stamp(
    (
        (Limb(0.0, 0.0, 0.0, -0.3, 0.06, 0.06), (92, 64, 46)),
        (Limb(0.0, -0.2, 0.0, -0.62, 0.26, 0.02), (38, 82, 62)),
        (Limb(0.0, -0.42, 0.0, -0.95, 0.2, 0.01), (52, 102, 74)),
    )
)
_SNOW_PINE = Stamp(
    (
        (Limb(0.0, 0.0, 0.0, -0.3, 0.06, 0.06), (104, 84, 76)),
        (Limb(0.0, -0.2, 0.0, -0.62, 0.26, 0.02), (70, 112, 112)),
        (Limb(0.0, -0.42, 0.0, -0.95, 0.2, 0.01), (88, 130, 126)),
        (Limb(0.0, -0.72, 0.0, -0.95, 0.1, 0.01), (226, 236, 242)),
    )
)
_TREE = Stamp(
    (
        (Limb(0.0, 0.0, 0.0, -0.5, 0.07, 0.05), (104, 74, 52)),
        (Oval(-0.2, -0.58, 0.24, 0.2), (66, 118, 66)),
        (Oval(0.2, -0.6, 0.24, 0.22), (58, 106, 62)),
        (Oval(0.0, -0.75, 0.27, 0.22), (84, 138, 76)),
    )
)
_MUSHROOM = Stamp(
    (
        (Limb(0.0, 0.0, 0.0, -0.5, 0.14, 0.1), (226, 214, 190)),
        (Oval(0.0, -0.58, 0.46, 0.26), (186, 70, 58)),
        (Oval(-0.16, -0.64, 0.09, 0.07), (240, 230, 214)),
        (Oval(0.17, -0.58, 0.08, 0.07), (240, 230, 214)),
    )
)
_STONE = Stamp(
    (
        (Oval(0.0, -0.2, 0.6, 0.3), (112, 112, 114)),
        (Oval(-0.1, -0.28, 0.42, 0.18), (142, 142, 142)),
    )
)
_SANDSTONE = Stamp(
    (
        (Oval(0.0, -0.2, 0.66, 0.3), (158, 112, 80)),
        (Oval(-0.1, -0.28, 0.45, 0.18), (188, 140, 100)),
    )
)
_TUFT = Stamp(
    (
        (Limb(0.0, 0.0, -0.34, -0.62, 0.09, 0.02), (76, 128, 58)),
        (Limb(0.0, 0.0, 0.34, -0.58, 0.09, 0.02), (88, 142, 66)),
        (Limb(0.0, 0.0, 0.02, -0.82, 0.09, 0.02), (102, 158, 74)),
    )
)


def _flower(petals: Color, center: Color) -> Stamp:
    return Stamp(
        (
            (Limb(0.0, 0.0, 0.0, -0.5, 0.05, 0.04), (70, 122, 60)),
            (Oval(0.0, -0.6, 0.3, 0.14), petals),
            (Oval(0.0, -0.6, 0.14, 0.3), petals),
            (Oval(0.0, -0.6, 0.11, 0.11), center),
        )
    )


_DAISY = _flower((240, 238, 228), (226, 178, 60))
_POPPY = _flower((206, 74, 66), (60, 44, 44))
_BELL = _flower((138, 104, 186), (236, 206, 120))
_CACTUS = Stamp(
    (
        (Limb(0.0, 0.0, 0.0, -0.85, 0.12, 0.11), (78, 124, 84)),
        (Limb(-0.32, -0.4, -0.32, -0.66, 0.08, 0.07), (78, 124, 84)),
        (Limb(-0.32, -0.4, 0.0, -0.36, 0.08, 0.08), (70, 114, 78)),
        (Limb(0.3, -0.5, 0.3, -0.74, 0.07, 0.07), (92, 140, 94)),
        (Limb(0.3, -0.5, 0.0, -0.46, 0.07, 0.07), (70, 114, 78)),
    )
)
_BONE = Stamp(
    (
        (Limb(-0.4, -0.14, 0.4, -0.14, 0.06, 0.06), (226, 216, 194)),
        (Oval(-0.44, -0.2, 0.12, 0.1), (226, 216, 194)),
        (Oval(0.44, -0.1, 0.12, 0.1), (214, 202, 178)),
    )
)
_CORAL = Stamp(
    (
        (Limb(0.0, 0.0, 0.0, -0.6, 0.1, 0.07), (206, 112, 112)),
        (Limb(0.0, -0.2, -0.34, -0.7, 0.08, 0.06), (206, 112, 112)),
        (Limb(0.0, -0.3, 0.34, -0.8, 0.08, 0.06), (222, 132, 124)),
    )
)
_WEED = Stamp(
    (
        (Limb(0.0, 0.0, -0.1, -0.35, 0.08, 0.08), (48, 128, 98)),
        (Limb(-0.1, -0.35, 0.08, -0.65, 0.08, 0.07), (54, 138, 104)),
        (Limb(0.08, -0.65, -0.06, -0.95, 0.07, 0.02), (62, 150, 112)),
    )
)
_SHELL = Stamp(
    (
        (Oval(0.0, -0.16, 0.34, 0.24), (232, 208, 186)),
        (Oval(0.0, -0.1, 0.2, 0.14), (212, 172, 152)),
    )
)
_BUBBLES = Stamp(
    (
        (Oval(0.0, 0.0, 0.3, 0.3), (158, 208, 220)),
        (Oval(0.0, 0.0, 0.2, 0.2), (112, 178, 196)),
        (Oval(0.4, -0.6, 0.18, 0.18), (170, 216, 226)),
    )
)
_BUSH = Stamp(
    (
        (Oval(-0.3, -0.24, 0.36, 0.26), (42, 56, 84)),
        (Oval(0.3, -0.22, 0.36, 0.24), (36, 48, 76)),
        (Oval(0.0, -0.36, 0.38, 0.34), (50, 68, 96)),
    )
)
_CLOUD = Stamp(
    (
        (Oval(-0.42, 0.0, 0.36, 0.18), (232, 238, 242)),
        (Oval(0.4, 0.02, 0.42, 0.17), (228, 234, 240)),
        (Oval(0.0, -0.12, 0.42, 0.24), (242, 246, 248)),
    )
)
_SUN = Stamp(
    (
        (Oval(0.0, 0.0, 0.5, 0.5), (250, 224, 158)),
        (Oval(0.0, 0.0, 0.4, 0.4), (252, 234, 184)),
    )
)
_MOON = Stamp(
    (
        (Oval(0.0, 0.0, 0.5, 0.5), (234, 228, 200)),
        (Oval(0.14, -0.1, 0.1, 0.1), (212, 204, 174)),
    )
)
_STAR = Stamp(((Oval(0.0, 0.0, 0.1, 0.1), (244, 238, 206)),))


@dataclass(frozen=True)
class Scene:
    """A place: its colors from top to bottom, the roughness of its ground, and its clutter."""

    sky: tuple[Color, Color]
    ground: tuple[Color, Color]
    hills: tuple[Color, ...]
    roughness: float
    standing: tuple[Stamp, ...]
    floating: tuple[Stamp, ...]
    clutter_scale: float = 0.2


SCENES: dict[str, Scene] = {
    "meadow": Scene(
        ((142, 196, 226), (212, 232, 230)), ((156, 188, 106), (104, 152, 72)),
        ((126, 170, 130), (138, 180, 110)), 11.0,
        (_DAISY, _POPPY, _TUFT, _TUFT, _BELL, _TREE), (_CLOUD, _CLOUD, _SUN), 0.15,
    ),
    "forest": Scene(
        ((150, 178, 160), (198, 208, 176)), ((108, 112, 68), (76, 76, 50)),
        ((98, 136, 112), (72, 108, 82)), 16.0,
        (_PINE, _PINE, _TREE, _MUSHROOM, _STONE, _TUFT), (), 0.3,
    ),
    "desert": Scene(
        ((236, 178, 132), (248, 220, 176)), ((228, 184, 128), (202, 146, 92)),
        ((204, 146, 112), (222, 170, 118)), 9.0,
        (_CACTUS, _CACTUS, _SANDSTONE, _BONE, _TUFT), (_SUN,), 0.22,
    ),
    "snow": Scene(
        ((170, 198, 220), (222, 230, 238)), ((236, 240, 244), (206, 218, 230)),
        ((186, 204, 220), (216, 226, 236)), 6.0,
        (_SNOW_PINE, _SNOW_PINE, _STONE, _PINE), (_CLOUD,), 0.25,
    ),
    "reef": Scene(
        ((96, 186, 200), (42, 132, 162)), ((196, 184, 142), (156, 146, 116)),
        ((44, 118, 138),), 9.0,
        (_CORAL, _CORAL, _WEED, _WEED, _SHELL, _STONE), (_BUBBLES, _BUBBLES, _BUBBLES), 0.2,
    ),
    "night": Scene(
        ((26, 32, 70), (76, 72, 118)), ((58, 70, 92), (38, 46, 66)),
        ((52, 56, 96), (44, 56, 80)), 7.0,
        (_BUSH, _BUSH, _STONE, _PINE), (_STAR, _STAR, _STAR, _STAR, _MOON), 0.22,
    ),
}  # fmt: skip


def _ramp(colors: tuple[Color, Color], share: Float32[np.ndarray, "h 1"]) -> Picture:
    first, last = ink(colors[0]), ink(colors[1])
    return first + (last - first) * clamp(share)


def paint_scene(rng: np.random.Generator, name: str, size: int) -> Picture:
    """Paints a place without creatures."""
    scene = SCENES[name]
    rows = np.arange(size, dtype=np.float32)[:, None]
    horizon = uniform(rng, 0.3, 0.55) * size
    picture = np.repeat(_ramp(scene.sky, rows / horizon), size, axis=2)
    for _ in range(int(rng.integers(1, 4)) if scene.floating else 0):
        stamp = choice(rng, scene.floating)
        x, y = uniform(rng, 0.0, 1.0) * size, uniform(rng, 0.04, 0.9) * horizon
        paint_stamp(picture, stamp, Pose(x, y, uniform(rng, 0.1, 0.22) * size))
    for layer, color in enumerate(scene.hills):
        height = (0.14 - 0.07 * layer) * size
        ridge = horizon - height * (
            0.4 + 0.6 * noise_line(rng, size, size / uniform(rng, 2.0, 6.0))
        )
        blend(picture, ink(color), coverage(ridge - rows))
    ridge = horizon + 0.02 * size * noise_line(rng, size, size / 4)
    rough = noise_plane(rng, (size, size), (size / 14, size / 7))
    rough += 0.7 * noise_plane(rng, (size, size), (size / 40, size / 24))
    ground = _ramp(scene.ground, (rows - horizon) / (size - horizon)) + scene.roughness * rough
    blend(picture, ground, coverage(ridge - rows))
    # Distant things come first; nearer things are lower in the image and larger.
    depths = sorted(uniform(rng, 0.0, 1.0) for _ in range(int(rng.integers(3, 9))))
    for depth in depths:
        scale = scene.clutter_scale * size * (0.45 + 0.8 * depth) * uniform(rng, 0.8, 1.25)
        x, y = uniform(rng, 0.0, 1.0) * size, horizon + (0.03 + 0.95 * depth) * (size - horizon)
        paint_stamp(picture, choice(rng, scene.standing), Pose(x, y, scale))
    return picture
