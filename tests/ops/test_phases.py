"""The kernel gradient by phases against the automatic derivative."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.ops import phases
from wsss_jax.ops.phases import phase_kernel_gradient
from wsss_jax.ops.xla_conv import Padding, xla_conv

SAME_2, SAME_4 = ((2, 2), (2, 2)), ((4, 4), (4, 4))


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize(
    ("size", "taps", "dilation", "padding"),
    [
        ((8, 12), (3, 3), 2, SAME_2),
        ((17, 9), (3, 3), 4, SAME_4),
        ((5, 4), (3, 3), 6, ((6, 6), (6, 6))),  # the dilation exceeds the image
        ((9, 10), (3, 3), 2, ((0, 0), (0, 0))),
        ((7, 8), (3, 3), 3, ((1, 4), (5, 0))),  # no multiples of the dilation
        ((11, 6), (5, 2), 2, ((4, 3), (1, 2))),
        ((6, 7), (1, 3), 5, ((0, 2), (7, 3))),
        ((6, 7), (3, 3), 1, ((1, 1), (0, 2))),
    ],
)
def test_equals_the_automatic_derivative(
    size: tuple[int, int],
    taps: tuple[int, int],
    dilation: int,
    padding: Padding,
    groups: int,
):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, *size, 6)), jnp.float32)
    kernel = jnp.zeros((*taps, 6 // groups, 12), jnp.float32)
    y, backward = jax.vjp(lambda k: xla_conv(x, k, 1, dilation, padding, groups), kernel)
    g = jnp.asarray(rng.standard_normal(y.shape), jnp.float32)
    found = phase_kernel_gradient(x, g, taps, dilation, padding, groups)
    assert found.shape == kernel.shape
    np.testing.assert_allclose(found, backward(g)[0], rtol=1e-5, atol=1e-4)


def test_the_phases_of_an_image_are_its_pixels_at_a_distance():
    x = jnp.arange(2.0 * 5 * 4).reshape(2, 5, 4, 1)
    found = np.asarray(phases._phases(x, 2, (1, 0)))
    padded = np.pad(np.asarray(x), ((0, 0), (1, 0), (0, 0), (0, 0)))
    expected = [padded[b, i::2, j::2] for b in range(2) for i in range(2) for j in range(2)]
    np.testing.assert_array_equal(found, expected)


def test_keeps_the_dtype():
    x, g = jnp.ones((1, 6, 6, 2), jnp.bfloat16), jnp.ones((1, 6, 6, 3), jnp.bfloat16)
    assert phase_kernel_gradient(x, g, (3, 3), 2, SAME_2).dtype == jnp.bfloat16
