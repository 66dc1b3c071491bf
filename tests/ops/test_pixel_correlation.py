"""Pixel correlation agrees with a loop over pixel pairs, in blocks and under padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.ops.pixel_correlation import pixel_correlation, pixel_correlation_input

E = 1e-5


def random_maps(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def loop(features: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """[n, d] and [n, k] to [n, k], one pair of pixels at a time."""
    unit = [f / (np.sqrt((f * f).sum()) + E) for f in features]
    out = np.zeros_like(cam)
    for j in range(len(cam)):
        weights = [max(float(np.dot(unit[i], unit[j])), 0) for i in range(len(cam))]
        out[j] = sum(w * cam[i] for i, w in enumerate(weights)) / (sum(weights) + E)
    return out


def test_equals_loop():
    features, cam = random_maps(2, 3, 4, 5), random_maps(2, 3, 4, 3, seed=1)
    result = jax.jit(pixel_correlation)(features, cam)
    for i in range(2):
        expected = loop(np.asarray(features[i]).reshape(12, 5), np.asarray(cam[i]).reshape(12, 3))
        np.testing.assert_allclose(np.asarray(result[i]).reshape(12, 3), expected, atol=1e-5)


@pytest.mark.parametrize("block", [7, 16])
def test_blocks_change_nothing(block):
    features, cam = random_maps(2, 5, 7, 6), random_maps(2, 5, 7, 3, seed=1)

    def total(features, cam, block):
        return (pixel_correlation(features, cam, block=block) ** 2).sum()

    derived = jax.jit(jax.value_and_grad(total, (0, 1)), static_argnums=2)
    value, gradients = derived(features, cam, block)
    expected, expected_gradients = derived(features, cam, 35)
    assert value == pytest.approx(float(expected), rel=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients, expected_gradients
    )


@pytest.mark.parametrize("block", [None, 8])
def test_padding_changes_nothing(block):
    features, cam = random_maps(1, 6, 7, 4), random_maps(1, 6, 7, 3, seed=1)
    valid = np.zeros((1, 6, 7), bool)
    valid[:, :4, :5] = True

    @functools.partial(jax.jit, static_argnums=3)
    def revise(features, cam, valid, block):
        return pixel_correlation(features, pixel_correlation_input(cam, valid), valid, block)

    result = revise(features, cam, jnp.asarray(valid), block)
    alone = revise(features[:, :4, :5], cam[:, :4, :5], None, None)
    np.testing.assert_allclose(result[:, :4, :5], alone, atol=1e-6)
    assert not result[:, 4:].any() and not result[:, :, 5:].any()


def test_zero_features_have_finite_gradients():
    features = jnp.zeros((1, 3, 3, 4)).at[0, 0, 0].set(1.0)
    total = jax.jit(jax.grad(lambda f: pixel_correlation(f, jnp.ones((1, 3, 3, 2))).sum()))
    gradient = total(features)
    assert jnp.isfinite(gradient).all()


def test_input_by_hand():
    cam = jnp.asarray([[9.0, 4, 1], [9, 2, 2], [9, -1, -2], [9, 0, 1]]).reshape(1, 2, 2, 3)
    result = np.asarray(jax.jit(pixel_correlation_input)(cam)).reshape(4, 3)
    # Foreground over its maxima, 4 and 2; only the larger of the two stays.
    expected = [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0.5, 0, 0.5]]
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_input_carries_no_gradient():
    gradient = jax.jit(jax.grad(lambda c: pixel_correlation_input(c).sum()))
    assert not gradient(random_maps(1, 4, 4, 3)).any()


@pytest.mark.parametrize("derivative", [False, True])
def test_large_image_needs_no_square_matrix(derivative):
    pixels = 125 * 125  # an image of 1000 × 1000: all pairs would take 977 MB
    features = jax.ShapeDtypeStruct((1, 125, 125, 32), jnp.float32)
    cam = jax.ShapeDtypeStruct((1, 125, 125, 21), jnp.float32)

    def total(features, cam):
        return pixel_correlation(features, cam).sum()

    function = jax.grad(total) if derivative else total
    memory = jax.jit(function).lower(features, cam).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < pixels**2 * 4 / 4
