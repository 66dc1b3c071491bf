"""The depthwise convolution against XLA's grouped convolution, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.ops.depthwise import _grouped, depthwise_conv

CASES = [
    (1, 1, ((1, 1), (1, 1))),
    (1, 2, ((2, 2), (2, 2))),
    (1, 4, ((4, 4), (4, 4))),
    (2, 1, ((0, 1), (0, 1))),
    (2, 1, ((0, 2), (0, 1))),
    (2, 1, ((1, 1), (1, 1))),
    (1, 1, ((0, 0), (3, 0))),
]
WIDE_CASES = [
    (1, 1, ((2, 2), (2, 2))),
    (1, 2, ((4, 4), (4, 4))),
    (2, 1, ((1, 2), (1, 2))),
    (2, 1, ((2, 2), (1, 3))),
    (2, 1, ((0, 1), (2, 0))),
]


@pytest.mark.parametrize(
    ("size", "stride", "dilation", "padding"),
    [(3, *case) for case in CASES] + [(5, *case) for case in WIDE_CASES],
)
def test_equals_grouped_convolution(size, stride, dilation, padding):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 11, 14, 5))
    kernel = jax.random.normal(keys[1], (size, size, 1, 5))
    expected, backward = jax.vjp(lambda x, k: _grouped(x, k, stride, dilation, padding), x, kernel)
    found, own_backward = jax.vjp(
        lambda x, k: depthwise_conv(x, k, stride, dilation, padding), x, kernel
    )
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)
    g = jax.random.normal(keys[2], expected.shape)
    for own, reference in zip(own_backward(g), backward(g), strict=True):
        np.testing.assert_allclose(own, reference, atol=1e-4)


def test_keeps_the_dtype():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    kernel = jnp.ones((3, 3, 1, 2), jnp.bfloat16)
    y, backward = jax.vjp(lambda k: depthwise_conv(x, k), kernel)
    assert y.dtype == jnp.bfloat16
    assert backward(y)[0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(y[0, 1, 1], np.float32), 9)
