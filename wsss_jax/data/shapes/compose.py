"""Composes images of the built-in data set: the place, its creatures, their poses and the light."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int8, UInt8

from wsss_jax.data.shapes.draw import Picture, Pose, centers, choice, uniform
from wsss_jax.data.shapes.heads import CLASSES
from wsss_jax.data.shapes.scenes import SCENES, paint_scene
from wsss_jax.data.shapes.toys import BODIES, PALETTES, PATTERNS, Coat, Toy, build, headless

HOMES = dict(zip(CLASSES, ("night", "forest", "snow", "reef", "desert", "meadow"), strict=True))
HOME_PROBABILITY = 0.35  # that the first creature is at home; each other place has 0.13
# Pairs of classes that tend to wear the same palettes and patterns, as cats and dogs do.
_KIN = (
    (("owl", "frog"), (0, 3), ("spots", "scales")),
    (("fox", "dragon"), (1, 4), ("stripes", "rings")),
    (("panda", "unicorn"), (2, 5), ("wool", "patches")),
)
COATS = {name: (palettes, patterns) for names, palettes, patterns in _KIN for name in names}
COAT_PROBABILITY = 0.85  # of a coat that the class prefers; otherwise it is any coat
COUNT_SHARES = (0.6, 0.3, 0.1)  # shares of images with one, two and three creatures
# Lengths are relative to the size of the image.
SHORTEST = 0.56
LONGEST = (1.35, 1.05, 0.85)  # in images with one, two and three creatures
CLOTH_PROBABILITY = 0.25  # of a headless thing in a coat, behind or in front of the creatures
# Every creature stays recognizable, because at least these shares of it are visible.
SEEN_HEAD = 0.65
SEEN_BODY = 0.4
MOST_HEAD = 0.35  # the largest share of the head in what is visible of a creature
_TRIES = 8


@dataclass(frozen=True)
class Creature:
    """A creature; ``body`` (with the head) and ``head`` mark its visible pixels."""

    name: str
    coat: Coat
    length: float
    body: Bool[np.ndarray, "s s"]
    head: Bool[np.ndarray, "s s"]


@dataclass(frozen=True)
class Composition:
    """An image with everything that is known about it; `creatures` are in painting order."""

    image: UInt8[np.ndarray, "s s 3"]
    mask: UInt8[np.ndarray, "s s"]
    scene: str
    creatures: tuple[Creature, ...]


def compose(rng: np.random.Generator, first: str, size: int) -> Composition:
    """Draws an image that shows a creature of the class `first`, and maybe others."""
    count = 1 + int(np.searchsorted(np.cumsum(COUNT_SHARES)[:-1], rng.random(), side="right"))
    names: list[str | None] = [first, *(choice(rng, CLASSES) for _ in range(count - 1))]
    at_home = rng.random() < HOME_PROBABILITY
    away = [scene for scene in SCENES if scene != HOMES[first]]
    scene = HOMES[first] if at_home else choice(rng, away)
    picture = paint_scene(rng, scene, size)
    if rng.random() < CLOTH_PROBABILITY:
        names.insert(choice(rng, (0, count)), None)
    owner = np.full((size, size), -1, np.int8)
    placed: list[_Placed] = []
    for name in names:
        # The first creature must find a place, which takes about two tries.
        alone = not any(item.name for item in placed)
        for _ in range(100 * _TRIES if name and alone else _TRIES):
            candidate = _stand(rng, name, LONGEST[count - 1], size)
            if candidate is None:
                continue
            layered = owner.copy()
            layered[candidate.toy.area][candidate.toy.body] = len(placed)
            together = enumerate([*placed, candidate])
            if all(_recognizable(layered, number, item) for number, item in together):
                owner = layered
                placed.append(candidate)
                candidate.toy.cast(picture)
                break
    mask = np.zeros((size, size), np.uint8)
    creatures = []
    for number, item in enumerate(placed):
        if item.name is None:
            continue
        body = owner == number
        mask[body] = CLASSES.index(item.name) + 1
        head = np.zeros_like(body)
        head[item.toy.area] = item.toy.head
        creatures.append(Creature(item.name, item.coat, item.length, body, head & body))
    return Composition(_expose(rng, picture), mask, scene, tuple(creatures))


@dataclass(frozen=True)
class _Placed:
    name: str | None
    coat: Coat
    length: float
    toy: Toy


def _stand(rng: np.random.Generator, name: str | None, longest: float, size: int) -> _Placed | None:
    """Draws a creature in a random pose, or returns None if its head would leave the image."""
    plan = choice(rng, tuple(BODIES.values()))
    body = plan(rng) if name else headless(rng)
    length = uniform(rng, SHORTEST, longest)
    x, y = uniform(rng, 0.14, 0.86) * size, uniform(rng, 0.18, 0.86) * size
    pose = Pose(x, y, length * size, int(rng.integers(-40, 41)), bool(rng.integers(2)))
    palettes, patterns = tuple(range(len(PALETTES))), PATTERNS
    if name and rng.random() < COAT_PROBABILITY:
        palettes, patterns = COATS[name]
    coat = Coat(choice(rng, palettes), choice(rng, patterns))
    if name:
        crown = body.crown(pose)
        margin = 1.2 * crown.scale
        if not all(margin < place < size - margin for place in (crown.x, crown.y)):
            return None
    return _Placed(name, coat, length, build(rng, name, body, coat, pose, size))


def _recognizable(owner: Int8[np.ndarray, "s s"], number: int, item: _Placed) -> bool:
    """Returns whether enough of a creature is visible; a thing without a head may be hidden."""
    if item.name is None:
        return True
    seen, toy = owner[item.toy.area] == number, item.toy
    head, body = np.count_nonzero(seen & toy.head), np.count_nonzero(seen)
    return bool(
        head >= SEEN_HEAD * np.count_nonzero(toy.head)
        and body >= SEEN_BODY * np.count_nonzero(toy.body)
        and head <= MOST_HEAD * body
    )


def _expose(rng: np.random.Generator, picture: Picture) -> UInt8[np.ndarray, "s s 3"]:
    """Turns a drawing into a photograph: adds light from one side, a tint and noise."""
    size = picture.shape[-1]
    x, y = centers((slice(0, size), slice(0, size)))
    light = uniform(rng, 0.88, 1.1) + uniform(rng, -0.25, 0.25) * (x / size - 0.5)
    light = light + uniform(rng, -0.25, 0.25) * (y / size - 0.5)
    tint = np.array([uniform(rng, 0.94, 1.06) for _ in range(3)], np.float32)
    amount = int(rng.integers(3, 13))
    noise = rng.integers(-amount, amount + 1, picture.shape, np.int8)
    exposed = np.clip(picture * light * tint[:, None, None] + noise + 0.5, 0.0, 255.0)
    return np.ascontiguousarray(exposed.astype(np.uint8).transpose(1, 2, 0))
