"""Bicubic resizing inside programs, against Pillow's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.data.augment import resize_image
from wsss_jax.ops.bicubic import resize_like_pillow


def _resized(image: np.ndarray, new: tuple[int, int], padding: int = 0) -> np.ndarray:
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, padding), (0, 2 * padding), (0, 0)), constant_values=99)
    canvas = (new[0] + padding, new[1] + 3 * padding)
    resize = jax.jit(resize_like_pillow, static_argnums=2)
    sizes = jnp.array([height, width]), jnp.array(new)
    result = np.asarray(resize(jnp.asarray(padded), sizes[0], canvas, sizes[1]))
    assert not result[new[0] :].any() and not result[:, new[1] :].any()
    return result[: new[0], : new[1]]


@pytest.mark.parametrize("scale", [0.5, 2.0, 0.75])
def test_gray_levels_are_pillows_at_the_usual_scales(scale: float):
    """Also where sums are halfway between two levels, as they often are at scales 0.5 and 2."""
    image = np.random.default_rng(0).integers(0, 256, (24, 36, 3)).astype(np.uint8)
    new = (round(24 * scale), round(36 * scale))
    expected = resize_image(image, *new)
    np.testing.assert_array_equal(_resized(image, new), expected)
    np.testing.assert_array_equal(_resized(image, new, padding=5), expected)


@pytest.mark.parametrize("new", [(30, 45), (31, 29), (7, 50), (1, 1), (100, 3)])
def test_other_sizes_differ_by_rounding(new: tuple[int, int]):
    image = np.random.default_rng(1).integers(0, 256, (23, 37, 3)).astype(np.uint8)
    expected = resize_image(image, *new).astype(int)
    found = _resized(image, new).astype(int)
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.005
    # What is beyond the valid part does not matter, but loops of other lengths round otherwise.
    padded = _resized(image, new, padding=11).astype(int)
    assert np.abs(padded - found).max() <= 1 and (padded != found).mean() < 0.001


def test_a_large_reduction_stays_exact():
    """Sums of many samples still have fewer bits than float32."""
    image = np.random.default_rng(2).integers(0, 256, (640, 16, 3)).astype(np.uint8)
    np.testing.assert_array_equal(_resized(image, (40, 16)), resize_image(image, 40, 16))
