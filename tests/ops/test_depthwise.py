"""The depthwise convolution against XLA's grouped convolution, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.ops import depthwise
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
    check(2, size, stride, dilation, padding)


def test_many_images_have_a_short_program():
    check(depthwise._UNROLLED + 1, 3, *CASES[1])

    def gradient(images: int) -> int:
        x = jnp.zeros((images, 4, 4, 2))
        kernel = jnp.zeros((3, 3, 1, 2))
        program = jax.make_jaxpr(jax.grad(lambda k: depthwise_conv(x, k).sum()))(kernel)
        return len(str(program))

    assert gradient(1000) < gradient(8)


def check(images, size, stride, dilation, padding):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, 11, 14, 5), np.float32)
    kernel = rng.standard_normal((size, size, 1, 5), np.float32)
    how = stride, dilation, padding
    shape = jax.eval_shape(lambda x, k: _grouped(x, k, *how), x, kernel).shape
    g = rng.standard_normal(shape, np.float32)

    def with_gradients(conv):
        def both(x, kernel, g):
            y, backward = jax.vjp(lambda x, k: conv(x, k, *how), x, kernel)
            return y, *backward(g)

        return jax.jit(both)(x, kernel, g)

    found, *own = with_gradients(depthwise_conv)
    expected, *reference = with_gradients(_grouped)
    assert found.shape == expected.shape == shape
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for one, other in zip(own, reference, strict=True):
        # Sums of more products round differently by more.
        np.testing.assert_allclose(one, other, atol=1e-4 * max(images / 16, 1))


def test_keeps_the_dtype():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    kernel = jnp.ones((3, 3, 1, 2), jnp.bfloat16)
    y, backward = jax.vjp(lambda k: depthwise_conv(x, k), kernel)
    assert y.dtype == jnp.bfloat16
    assert backward(y)[0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(y[0, 1, 1], np.float32), 9)
