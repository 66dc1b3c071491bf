"""Losses and normalizations: values computed by hand, derivatives, empty maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from wsss_jax import losses
from wsss_jax.losses.hard_examples import _kth_key
from wsss_jax.ops.max_norm import EPSILON, max_norm, min_max_norm, winner_only, with_background


def random_maps(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_multilabel_soft_margin():
    logits, labels = jnp.asarray([[0.0, np.log(3)]]), jnp.asarray([[1.0, 0.0]])
    # −log ½ for the first class, −log(1 − ¾) for the second.
    expected = (np.log(2) + np.log(4)) / 2
    assert losses.multilabel_soft_margin(logits, labels) == pytest.approx(expected, rel=1e-6)
    extreme = losses.multilabel_soft_margin(jnp.asarray([[200.0, -200.0]]), labels * 0 + 1)
    assert extreme == pytest.approx(100)


def test_equivariance_l1():
    first, second = jnp.asarray([[[[0.0, 1.0]]]]), jnp.asarray([[[[3.0, 0.0]]]])
    assert losses.equivariance_l1(first, second) == 2


@pytest.mark.parametrize("width", [1, 4])
def test_the_kth_smallest_is_found_by_digits_of_any_width(width: int):
    """GPUs take digits of four bits; CPUs and TPUs of one."""
    rng = np.random.default_rng(width)
    values = rng.normal(size=(4, 97)).astype(np.float32)
    values[1] = rng.integers(-2, 3, 97)  # ties
    values[2, :9] = np.inf, -np.inf, 0.0, 1e-45, -1e-45, 3e38, -3e38, 1.0, np.float32(1) + 2**-23
    bits = values.view(np.uint32)
    keys = np.where(bits >= 1 << 31, ~bits, bits | np.uint32(1 << 31))
    for count in (1, 2, 48, 97, np.array([[1], [30], [60], [97]])):
        found = np.asarray(_kth_key(jnp.asarray(keys), jnp.asarray(count), width))
        places = np.broadcast_to(np.asarray(count) - 1, (4, 1))
        np.testing.assert_array_equal(found, np.take_along_axis(np.sort(keys, 1), places, 1))


def test_hardest_l1():
    target = jnp.asarray([[1.0, 0, 4, 0], [0, 0, 0, 2]]).reshape(2, 1, 2, 2)
    zero = jnp.zeros_like(target)
    assert losses.hardest_l1(target, zero, 0.5) == pytest.approx(((4 + 1) / 2 + (2 + 0) / 2) / 2)
    assert losses.hardest_l1(target, zero, 0.25) == 3
    assert losses.hardest_l1(target, zero, 0.01) == 3  # at least one entry counts


def test_losses_of_valid_pixels_alone():
    """As those of maps that have no others."""
    a, b = random_maps(2, 3, 4, 5), random_maps(2, 3, 4, 5, seed=1)
    valid = jnp.zeros((2, 4, 5), bool).at[:, :3, 1:].set(True)
    small_a, small_b = a[:, :, :3, 1:], b[:, :, :3, 1:]
    for loss in (
        losses.equivariance_l1,
        lambda a, b, valid=None: losses.hardest_l1(a, b, 0.3, valid=valid),
        lambda a, b, valid=None: losses.hardest_l1(a, b, 0.3, 9, valid),  # six were left out
    ):
        derived = jax.jit(jax.value_and_grad(loss, 1))
        value, gradient = derived(a, b, valid)
        assert value == pytest.approx(float(jax.jit(loss)(small_a, small_b)), rel=1e-6)
        assert value > 0
        gradient = np.asarray(gradient)
        assert not gradient[:, :, 3].any() and not gradient[..., 0].any()
        assert derived(a, b, jnp.zeros_like(valid))[0] == 0


def test_smallest_response():
    first = jnp.asarray([5.0, -3, 2, 1, 0, 7, 8, 9]).reshape(1, 1, 2, 4)
    maps = jnp.concatenate([first, first - 1], axis=1)
    assert losses.smallest_response(maps, 0.5) == pytest.approx((0 + 0 + 1 + 2) / 4)
    assert losses.smallest_response(maps) == 0


def test_ties_share_the_gradient():
    slope = jax.jit(jax.grad(losses.smallest_response), static_argnums=1)
    gradient = slope(jnp.full((1, 1, 2, 4), 3.0), 0.25)
    np.testing.assert_allclose(gradient, np.full((1, 1, 2, 4), 1 / 8), rtol=1e-6)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 1.0])
def test_selection_equals_top_k(fraction):
    a, b = random_maps(3, 5, 4, 3), random_maps(3, 5, 4, 3, seed=1)
    count = int(60 * fraction)

    def sorted_out(b):
        return jax.lax.top_k(jnp.abs(a - b).reshape(3, -1), count)[0].mean()

    derived = jax.jit(jax.value_and_grad(losses.hardest_l1, 1), static_argnums=2)
    value, gradient = derived(a, b, fraction)
    expected, expected_gradient = jax.jit(jax.value_and_grad(sorted_out))(b)
    assert value == pytest.approx(float(expected), rel=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-8)


def test_normalizations_by_hand():
    cam = jnp.asarray([-1.0, 1.0, 2.0, 4.0]).reshape(1, 1, 2, 2)
    e = EPSILON
    np.testing.assert_allclose(
        max_norm(cam).ravel(), np.array([0, 1 - e, 2 - e, 4 - e]) / (4 + e), rtol=1e-6
    )
    shifted = cam + 2
    np.testing.assert_allclose(
        min_max_norm(shifted).ravel(), np.array([0, 2 - e, 3 - e, 5 - e]) / (5 + e), rtol=1e-6
    )


@pytest.mark.parametrize("normalize", [max_norm, min_max_norm])
def test_classes_without_response_are_zero(normalize):
    slope = jax.jit(jax.grad(lambda c: normalize(c).sum()))
    for value in (0.0, -1.0, 1e-7):
        cam = np.full((1, 3, 3, 2), value, np.float32)
        assert not np.asarray(jax.jit(normalize)(cam)).any()
        assert np.isfinite(slope(cam)).all()


@pytest.mark.parametrize("normalize", [max_norm, min_max_norm])
def test_only_valid_pixels_count(normalize):
    cam = random_maps(2, 3, 6, 6) + 3
    valid = np.zeros((2, 6, 6), bool)
    valid[0, :4, :5] = True  # the second image is nothing but padding
    result = np.asarray(jax.jit(normalize)(cam, valid))
    alone = jax.jit(normalize)(np.asarray(cam)[:1, :, :4, :5])
    np.testing.assert_array_equal(result[0, :, :4, :5], np.asarray(alone)[0])
    assert not np.moveaxis(result, 1, -1)[~valid].any()


def test_background_and_winners():
    foreground = jnp.asarray([0.2, 0.7, 0.7, 0.1]).reshape(1, 4, 1, 1)
    maps = with_background(foreground)
    np.testing.assert_allclose(maps.ravel(), [0.3, 0.2, 0.7, 0.7, 0.1], rtol=1e-6)
    np.testing.assert_allclose(winner_only(maps).ravel(), [0.3, 0, 0.7, 0.7, 0], rtol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: losses.multilabel_soft_margin(x[:, 0, 0], jnp.ones((2, 3))),
        lambda x: losses.equivariance_l1(x, jnp.zeros_like(x)),
        lambda x: losses.hardest_l1(jnp.zeros_like(x), x, 0.3),
        lambda x: losses.smallest_response(x, 0.5),
        lambda x: (max_norm(x) ** 2).sum(),
        lambda x: (min_max_norm(x) ** 2).sum(),
        lambda x: (with_background(max_norm(x)) ** 2).sum(),
    ],
)
def test_derivatives(function):
    # Distances between the values are far above the step, so no kink lies in between.
    values = np.random.default_rng(3).permutation(2 * 4 * 3 * 3) * 0.05 - 0.825
    x = jnp.asarray(values, jnp.float32).reshape(2, 4, 3, 3)
    compiled = jax.jit(function)
    check_grads(
        compiled,
        (x,),
        order=1,
        modes=["rev"],
        eps=5e-3,
        atol=2e-2,
        rtol=2e-2,
    )
    assert np.isfinite(jax.grad(compiled)(np.zeros_like(x))).all()
