"""Tiles: the published program's, their order, and that merging is the inverse of cutting."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.ops.tiles import cut_tiles, merge_tiles


def test_tiles_are_quarters_row_by_row():
    images = jnp.arange(2.0 * 4 * 6).reshape(2, 4, 6, 1)
    tiles = np.asarray(cut_tiles(images))[..., 0]
    assert tiles.shape == (8, 2, 3)
    for n, image in enumerate(np.asarray(images)[..., 0]):
        quarters = image[:2, :3], image[:2, 3:], image[2:, :3], image[2:, 3:]
        np.testing.assert_array_equal(tiles[4 * n : 4 * n + 4], quarters)
    np.testing.assert_array_equal(merge_tiles(cut_tiles(images)), images)


def test_golden_tiles(golden: Path):
    with np.load(golden / "puzzle_cam.npz") as file:
        images, theirs, summed = (
            file[name] for name in ("tile_in", "tile_out", "tile_cumsum_rows_merged")
        )
    tiles = cut_tiles(jnp.asarray(images))
    # In the published program, the first tiles of all images come first.
    by_place = theirs.reshape(4, len(images), *theirs.shape[1:]).swapaxes(0, 1)
    np.testing.assert_array_equal(tiles, by_place.reshape(theirs.shape))
    np.testing.assert_allclose(merge_tiles(jnp.cumsum(tiles, 1)), summed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(4, 5), (5, 4)])
def test_odd_sides_are_refused(size: tuple[int, int]):
    with pytest.raises(ValueError, match="even sides, found {} x {}".format(*size)):
        cut_tiles(jnp.zeros((1, *size, 3)))
