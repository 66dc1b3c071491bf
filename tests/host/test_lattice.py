"""The permutohedral lattice: the obvious one, symmetric, positive, local."""

import numpy as np
import pytest

from tests.reference.obvious_lattice import obvious_filter
from wsss_jax.host.lattice import Lattice, NormalizedKernel, Simplices


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
@pytest.mark.parametrize("spread", [0.3, 3.0, 20.0])
def test_the_lattice_is_the_obvious_one(dimensions: int, spread: float):
    rng = np.random.default_rng(dimensions)
    features = (spread * rng.standard_normal((dimensions, 150))).astype(np.float32)
    values = rng.random(150).astype(np.float32)
    expected = obvious_filter(features.T, values)
    np.testing.assert_allclose(Lattice(features).apply(values), expected, rtol=1e-3, atol=1e-4)


def test_points_in_many_blocks_are_placed_as_alone():
    features = np.random.default_rng(0).random((2, 20_000)).astype(np.float32) * 9
    whole = Simplices(features)
    for some in (slice(0, 100), slice(8150, 8250), slice(19_900, 20_000)):
        alone = Simplices(features[:, some])
        np.testing.assert_array_equal(whole.base[:, some], alone.base)
        np.testing.assert_array_equal(whole.rank[:, some], alone.rank)
        np.testing.assert_array_equal(whole.weight[:, some], alone.weight)


def test_splat_is_the_transpose_of_slice_and_the_filter_is_symmetric_and_positive():
    features = np.random.default_rng(0).random((2, 90)).astype(np.float32) * 4
    lattice = Lattice(features)
    np.testing.assert_array_equal(lattice.splat.toarray(), lattice.slice.toarray().T)
    np.testing.assert_allclose(lattice.slice.toarray().sum(1), 1, rtol=1e-6)
    dense = np.stack([lattice.apply(row) for row in np.eye(90, dtype=np.float32)], 1)
    assert dense.min() >= 0 and (np.diag(dense) > 0).all()
    # Blurs along two axes do not quite commute where vertices are missing.
    assert np.abs(dense - dense.T).max() < 0.2 * dense.max()


def test_far_away_points_do_not_meet_and_near_ones_weigh_most():
    features = np.array([[0.0, 0.1, 1.5, 80.0]], np.float32)
    kernel = NormalizedKernel(features, 2.0)
    first = kernel.apply(np.array([1, 0, 0, 0], np.float32))
    assert first[0] > first[1] > first[2] > 0 and first[3] == 0
    # The last point is alone: the kernel, normalized, is its weight.
    assert kernel.apply(np.array([0, 0, 0, 1], np.float32))[3] == pytest.approx(2, rel=1e-6)


def test_a_normalized_kernel_is_the_lattice_between_two_diagonal_matrices():
    features = np.random.default_rng(1).random((2, 40)).astype(np.float32) * 4
    unit = np.eye(40, dtype=np.float32)
    kernel, lattice = NormalizedKernel(features, 3.0), Lattice(features).apply(unit)
    norm = 1 / np.sqrt(lattice.sum(1))
    np.testing.assert_allclose(kernel.apply(unit), 3 * norm[:, None] * lattice * norm, rtol=1e-4)


def test_features_too_far_apart_are_refused():
    with pytest.raises(ValueError, match="widen the kernel"):
        Lattice(np.array([[0.0, 1e8]], np.float32))
    with pytest.raises(ValueError, match="cells of the lattice"):
        Lattice(np.array([[0.0, 1e5]] * 5, np.float32))
