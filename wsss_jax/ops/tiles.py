"""Cuts images into quarters, and puts the maps of quarters together again."""

from jaxtyping import Array, Float

TILES = 4
"""The tiles of an image, two along each side."""


def cut_tiles(images: Float[Array, "b h w c"]) -> Float[Array, "b4 p q c"]:
    """Cuts images into 2×2 tiles: top left, top right, bottom left, bottom right.

    The tiles of an image are neighbors in the batch, so that they stay on its device.

    Raises:
      ValueError: a side is odd.
    """
    b, h, w, c = images.shape
    if h % 2 or w % 2:
        raise ValueError(f"expected images with even sides, found {h} x {w}")
    grid = images.reshape(b, 2, h // 2, 2, w // 2, c).swapaxes(2, 3)
    return grid.reshape(TILES * b, h // 2, w // 2, c)


def merge_tiles(maps: Float[Array, "b4 p q c"]) -> Float[Array, "b h w c"]:
    """Puts the maps of tiles together again; the inverse of `cut_tiles`."""
    b4, p, q, c = maps.shape
    grid = maps.reshape(b4 // TILES, 2, 2, p, q, c).swapaxes(2, 3)
    return grid.reshape(b4 // TILES, 2 * p, 2 * q, c)
