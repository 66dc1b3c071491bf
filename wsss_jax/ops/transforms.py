"""Flips, rotations and translations of maps, for losses that ask a network to be equivariant.

Every function returns the moved maps and which of their pixels have a source; the others are zero.
Gradients flow back to exactly the pixels that a value came from.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from wsss_jax.ops.resize import resize_planes

KINDS = ("flip", "rotation", "translation")
"""The transforms that `draw_transform` knows, in the order in which they are applied."""

Moved = tuple[Float[Array, "b c h w"], Bool[Array, "b h w"] | None]
"""Maps, and which of their pixels have a source; None means all."""

Transform = Callable[[Float[Array, "b c h w"]], Moved]

_ROUNDING = 1e-3  # the error of float32 coordinates, in pixels, and of weights


def flip(x: Float[Array, "b c h w"]) -> Moved:
    """Flips each image horizontally."""
    return x[..., ::-1], None


def rotate(x: Float[Array, "b c h w"], degrees: Float[Array, " b"]) -> Moved:
    """Rotates each image about its center, with bilinear interpolation.

    Args:
      x: the maps.
      degrees: the angles, counterclockwise as the image is seen.
    """
    height, width = x.shape[2:]
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    row, column = jnp.arange(height)[:, None] - middle_y, jnp.arange(width) - middle_x
    angle = jnp.deg2rad(degrees)[:, None, None]
    source_y = jnp.cos(angle) * row + jnp.sin(angle) * column + middle_y
    source_x = jnp.cos(angle) * column - jnp.sin(angle) * row + middle_x
    inside = (jnp.abs(source_y - middle_y) <= middle_y + _ROUNDING) & (
        jnp.abs(source_x - middle_x) <= middle_x + _ROUNDING
    )
    top, bottom, down = _neighbors(source_y, height)
    left, right, across = _neighbors(source_x, width)
    pick = jax.vmap(lambda plane, y, x: plane[y, x])

    def of_planes(planes: Float[Array, "b h w"]) -> Float[Array, "b h w"]:
        upper = pick(planes, top, left) * (1 - across) + pick(planes, top, right) * across
        lower = pick(planes, bottom, left) * (1 - across) + pick(planes, bottom, right) * across
        return jnp.where(inside, upper * (1 - down) + lower * down, 0)

    # The result of a loop is stored. If a compiler computed it again for every reader, it could be
    # rounded differently, and a reader that looks for a pixel's maximum would not find it again.
    return jnp.moveaxis(jax.lax.map(of_planes, jnp.moveaxis(x, 1, 0)), 0, 1), inside


def _neighbors(source: Float[Array, "b h w"], length: int) -> tuple[Array, Array, Array]:
    """Returns the two pixels around a source position, and the weight of the second one."""
    source = jnp.clip(source, 0, length - 1)
    low = jnp.floor(source).astype(jnp.int32)
    return low, jnp.minimum(low + 1, length - 1), source - low


def translate(x: Float[Array, "b c h w"], shift: Int[Array, "b 2"]) -> Moved:
    """Moves each image by whole pixels.

    Args:
      x: the maps.
      shift: the number of pixels to move (down, right).
    """
    height, width = x.shape[2:]
    moved = jax.vmap(lambda image, by: jnp.roll(image, by, (1, 2)))(x, shift)
    source_y = jnp.arange(height) - shift[:, :1]
    source_x = jnp.arange(width) - shift[:, 1:]
    inside = ((source_y >= 0) & (source_y < height))[:, :, None]
    inside &= ((source_x >= 0) & (source_x < width))[:, None, :]
    return jnp.where(inside[:, None], moved, 0), inside


def draw_transform(
    kinds: Sequence[str],
    rng: PRNGKeyArray,
    batch: int,
    max_degrees: float = 20.0,
    max_pixels: int = 15,
) -> Transform:
    """Draws one transform for each image of a batch, made of `kinds` in the order of `KINDS`.

    The transform moves an image and maps of the image's size in the same way.

    Args:
      kinds: some of `KINDS`; if there are none, nothing moves.
      rng: the key for the angles and shifts, which differ between images. A flip is not random.
      batch: the number of images.
      max_degrees: angles are uniform up to this value in both directions.
      max_pixels: shifts are uniform up to this value in all directions.
    """
    angle_key, shift_key = jax.random.split(rng)
    steps: list[Transform] = []
    if "flip" in kinds:
        steps.append(flip)
    if "rotation" in kinds:
        degrees = jax.random.uniform(angle_key, (batch,), minval=-max_degrees, maxval=max_degrees)
        steps.append(functools.partial(rotate, degrees=degrees))
    if "translation" in kinds:
        shift = jax.random.randint(shift_key, (batch, 2), -max_pixels, max_pixels + 1)
        steps.append(functools.partial(translate, shift=shift))

    def transform(x: Float[Array, "b c h w"]) -> Moved:
        valid = None
        for step in steps:
            x, inside = step(x)
            if valid is not None:
                before, _ = step(valid[:, None].astype(jnp.float32))
                before = before[:, 0] >= 1 - _ROUNDING
                inside = before if inside is None else inside & before
            valid = inside
        return x, valid

    return transform


def resized_valid(
    valid: Bool[Array, "b h w"] | None, size: tuple[int, int]
) -> Bool[Array, "b oh ow"] | None:
    """Marks the pixels of maps resized to `size` (corners aligned) with only valid sources."""
    if valid is None:
        return None
    kept = resize_planes(valid[:, None].astype(jnp.float32), size, align_corners=True)
    return kept[:, 0] >= 1 - _ROUNDING
