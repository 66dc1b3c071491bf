"""Layers of all networks."""

import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.models.layers import max_pool


@pytest.mark.parametrize(("size", "stride", "before"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
@pytest.mark.parametrize("shape", [(5, 6), (8, 7), (1, 2)])
def test_max_pool_by_hand(size: int, stride: int, before: int, shape: tuple[int, int]):
    x = np.abs(np.random.default_rng(0).normal(size=(1, *shape, 2))).astype(np.float32)
    wide = np.pad(x, ((0, 0), (before, size), (before, size), (0, 0)))
    rows, columns = (range(0, side, stride) for side in shape)
    expected = [[wide[0, i : i + size, j : j + size].max((0, 1)) for j in columns] for i in rows]
    np.testing.assert_array_equal(max_pool(jnp.asarray(x), size, stride)[0], expected)
