"""The walk against dense matrices squared, its invariants, padding, and the published values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss_jax.ops.pair_affinity import boundary_affinity, feature_affinity, pair_mask
from wsss_jax.ops.path_index import pair_offsets, paths
from wsss_jax.ops.random_walk import random_walk

OFFSETS = pair_offsets()
FEW = pair_offsets(3)  # quicker to compile, where the number of pairs does not matter
# As an image of 3 x 3, 1 x 1, a narrow one, one whose radius shrinks, and one of full radius.
SIZES = [(3, 3), (1, 1), (2, 9), (7, 8), (12, 14)]


def dense_matrix(affinity: np.ndarray, offsets, beta: float) -> np.ndarray:
    """The symmetric matrix with unit diagonal of affinities [h, w, o], pair by pair."""
    h, w, _ = affinity.shape
    matrix = np.eye(h * w)
    for y, x in np.ndindex(h, w):
        for index, (dy, dx) in enumerate(offsets):
            if 0 <= y + dy < h and 0 <= x + dx < w:
                i, j = y * w + x, (y + dy) * w + x + dx
                matrix[i, j] = matrix[j, i] = affinity[y, x, index] ** beta
    return matrix


def dense_walk(scores, affinity, offsets, beta: float, doublings: int) -> np.ndarray:
    """What the published programs do: normalize the columns, square, multiply."""
    matrix = dense_matrix(affinity, offsets, beta)
    transition = matrix / matrix.sum(0)
    for _ in range(doublings):
        transition = transition @ transition
    k = scores.shape[-1]
    return (scores.reshape(-1, k).T @ transition).T.reshape(scores.shape)


def drawn(size, radius: int = 5, seed: int = 0):
    """Scores of three classes, and affinities that are zero where there is no pair."""
    rng = np.random.default_rng(seed)
    scores = rng.random((1, *size, 3)).astype(np.float32)
    affinity = rng.random((1, *size, len(pair_offsets(radius)))).astype(np.float32) ** 0.3
    mask = pair_mask(size, jnp.asarray([size]), radius)
    return scores, affinity * np.asarray(mask)


def test_offsets_are_the_published_pairs():
    assert len(OFFSETS) == 34 and OFFSETS[:5] == ((0, 1), (0, 2), (0, 3), (0, 4), (1, -4))
    assert len({*OFFSETS, *((-y, -x) for y, x in OFFSETS)}) == 68
    assert all(y * y + x * x < 25 for y, x in OFFSETS)
    assert pair_offsets(1) == () == paths(1)
    assert pair_offsets(2) == ((0, 1), (1, -1), (1, 0), (1, 1))


def test_paths_run_along_the_line():
    found = {path.offset: set(path.points) for path in paths()}
    assert set(found) == set(OFFSETS)
    assert found[0, 3] == {(0, 0), (0, 1), (0, 2), (0, 3)}
    assert found[2, -2] == {(0, 0), (0, -1), (1, 0), (1, -1), (1, -2), (2, -1), (2, -2)}
    # (0, 2) is 0.9 pixels away from the line, (0, 3) is 1.3.
    assert found[2, 4] == {(y, x) for y, x in np.ndindex(3, 5) if abs(2 * x - 4 * y) <= 4}
    for (dy, dx), points in found.items():
        assert {(0, 0), (dy, dx)} <= points
        assert {(dy - y, dx - x) for y, x in points} == points  # the same from the other end
    lengths = [len(path.points) for path in paths()]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (12, 14)])
@pytest.mark.parametrize("beta", [1.0, 8.0])
def test_equals_the_dense_matrix_squared(size, beta: float):
    scores, affinity = drawn(size)
    walked = random_walk(scores, affinity, offsets=OFFSETS, beta=beta, steps=256)
    expected = dense_walk(scores[0], affinity[0], OFFSETS, beta, doublings=8)
    np.testing.assert_allclose(walked[0], expected, atol=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 2, 101])
def test_equals_step_by_step(steps: int):
    scores, affinity = drawn((9, 11), radius=3)
    matrix = dense_matrix(affinity[0], FEW, 4.0)
    values = scores.reshape(-1, 3)
    for _ in range(steps):
        values = matrix @ values / matrix.sum(1)[:, None]
    walked = random_walk(scores, affinity, offsets=FEW, beta=4.0, steps=steps)
    np.testing.assert_allclose(np.reshape(walked, (-1, 3)), values, atol=1e-5)


def test_preserves_mass_and_constants():
    scores, affinity = drawn((20, 15), radius=3, seed=3)
    degree = dense_matrix(affinity[0], FEW, 8.0).sum(0)
    walked = np.asarray(random_walk(scores, affinity, offsets=FEW, beta=8.0, steps=256))
    before, after = (degree @ values.reshape(-1, 3) for values in (scores, walked))
    np.testing.assert_allclose(after, before, rtol=1e-5)
    assert np.abs(walked - scores).max() > 0.3  # it did walk
    constant = np.full_like(scores, 0.7)
    walked = random_walk(constant, affinity, offsets=FEW, beta=8.0, steps=256)
    np.testing.assert_allclose(walked, constant, rtol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_stays_between_the_extremes_and_does_not_mix_classes(seed: int):
    scores, affinity = drawn((7, 8), radius=3, seed=seed)
    walked = np.asarray(random_walk(scores, affinity, offsets=FEW, beta=8.0, steps=64))
    assert walked.min() >= scores.min() - 1e-5 and walked.max() <= scores.max() + 1e-5
    alone = random_walk(scores[..., 1:2], affinity, offsets=FEW, beta=8.0, steps=64)
    np.testing.assert_allclose(alone[..., 0], walked[..., 1], atol=1e-6)


def test_padding_changes_nothing():
    rng = np.random.default_rng(1)
    large = rng.random((len(SIZES), 16, 16, 3)).astype(np.float32)
    large_affinity = rng.random((len(SIZES), 16, 16, 34)).astype(np.float32)
    valid = np.zeros((len(SIZES), 16, 16), bool)
    for index, (h, w) in enumerate(SIZES):
        scores, affinity = drawn((h, w))
        large[index, :h, :w], large_affinity[index, :h, :w] = scores[0], affinity[0]
        valid[index, :h, :w] = True
    walked = random_walk(large, large_affinity, offsets=OFFSETS, beta=8.0, steps=64, valid=valid)
    for index, (h, w) in enumerate(SIZES):
        scores, affinity = drawn((h, w))
        expected = dense_walk(scores[0], affinity[0], OFFSETS, 8.0, doublings=6)
        np.testing.assert_allclose(walked[index, :h, :w], expected, atol=1e-5)


def test_pairs_start_where_all_of_a_pixels_pairs_fit():
    sizes = [(1, 1), (2, 5), (3, 3), (5, 6), (10, 12), (11, 11), (16, 14), (20, 20)]
    masks = np.asarray(pair_mask((20, 20), jnp.asarray(sizes)))
    for (h, w), found in zip(sizes, masks, strict=True):
        radius = (min(h, w) - 1) // 2 if min(h, w) < 11 else 5
        published = pair_offsets(radius)
        expected = np.zeros((20, 20, 34), bool)
        for index, offset in enumerate(OFFSETS):
            if offset in published:
                expected[: h - radius + 1, radius - 1 : w - radius + 1, index] = True
        np.testing.assert_array_equal(found, expected)


def test_feature_affinity_pair_by_pair():
    features = np.random.default_rng(0).normal(size=(1, 7, 9, 5)).astype(np.float32)
    affinity = np.asarray(feature_affinity(jnp.asarray(features), 3))
    offsets = pair_offsets(3)
    assert affinity.shape == (1, 7, 9, len(offsets))
    for y, x in np.ndindex(7, 9):
        for index, (dy, dx) in enumerate(offsets):
            if y + dy < 7 and 0 <= x + dx < 9:
                difference = np.abs(features[0, y, x] - features[0, y + dy, x + dx])
                assert affinity[0, y, x, index] == pytest.approx(np.exp(-difference.mean()), 1e-5)


def test_the_gradient_of_affinities_is_that_of_the_plain_formula():
    features = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 7, 4)), jnp.float32)

    def plain(f):
        total = 0.0
        for index, (dy, dx) in enumerate(pair_offsets(2)):
            there = f[:, dy : 5 + dy, 1 + dx : 6 + dx]
            affinity = jnp.exp(-jnp.abs(f[:, :5, 1:6] - there).mean(-1))
            total += (affinity**2 * (index + 1)).sum()
        return total

    def ours(f):
        affinity = feature_affinity(f, 2)[:, :5, 1:6]
        return (affinity**2 * jnp.arange(1, affinity.shape[-1] + 1)).sum()

    for ours_, plain_ in ((ours, plain), (jax.grad(ours), jax.grad(plain))):
        np.testing.assert_allclose(jax.jit(ours_)(features), jax.jit(plain_)(features), rtol=1e-4)


def test_boundaries_cut_the_walk():
    boundary = np.zeros((1, 6, 12), np.float32)
    boundary[:, :, 6] = 1
    affinity, offsets = boundary_affinity(jnp.asarray(boundary))
    for y, x in np.ndindex(6, 12):
        for index, (dy, dx) in enumerate(offsets):
            inside = y + dy < 6 and 0 <= x + dx < 12
            crosses = min(x, x + dx) <= 6 <= max(x, x + dx)
            if inside and not crosses and abs(x - 6) > 4:
                assert affinity[0, y, x, index] == 1
            elif not inside or (crosses and dy == 0):
                assert affinity[0, y, x, index] == 0
    scores = np.zeros((1, 6, 12, 1), np.float32)
    scores[:, 3, 2] = 1
    walked = np.asarray(random_walk(scores, affinity, offsets=offsets, beta=10.0, steps=256))
    assert walked[0, :, :5].min() > 0.01 and np.abs(walked[0, :, 7:]).max() < 1e-6


def test_one_program_for_all_betas():
    scores, affinity = drawn((7, 8), radius=2)
    traces = []

    @jax.jit
    def walk(beta):
        traces.append(beta)
        return random_walk(scores, affinity, offsets=pair_offsets(2), beta=beta, steps=5)

    results = [walk(beta) for beta in (1.0, 2.5, 8.0)]
    assert len(traces) == 1 and not np.allclose(results[0], results[2])


def test_impossible_walks_are_refused():
    scores, affinity = drawn((3, 3))
    for steps, offsets in ((-1, OFFSETS), (2, OFFSETS[:3])):
        with pytest.raises(ValueError, match="0 steps or more and an affinity per offset"):
            random_walk(scores, affinity, offsets=offsets, beta=8.0, steps=steps)


# Published values


def test_golden_walk_of_affinitynet(shared):
    golden = np.load(shared / "golden" / "affinity.npz")
    affinity = np.zeros((1, 16, 14, 34), np.float32)
    affinity[0, :12, 4:10] = golden["aff"].T.reshape(12, 6, 34)
    scores = golden["cam"].reshape(16, 8, 14, 8, 21).mean((1, 3))
    walked = random_walk(scores[None], affinity, offsets=OFFSETS, beta=8.0, steps=64)
    np.testing.assert_allclose(walked[0], golden["rw"], atol=1e-5)


def test_golden_walk_of_irnet(shared):
    golden = np.load(shared / "golden" / "irn.npz")
    boundary = golden["edge"][None]
    affinity, offsets = boundary_affinity(jnp.asarray(boundary))
    scores = golden["scores"][None] * (1 - boundary[..., None])
    walked = random_walk(scores, affinity, offsets=offsets, beta=10.0, steps=256)
    np.testing.assert_allclose(walked[0], golden["rw"], rtol=1e-4, atol=1e-5)
