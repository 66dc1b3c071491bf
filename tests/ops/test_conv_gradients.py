"""Gradients as sums of products against those that XLA derives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.ops import conv_gradients
from wsss_jax.ops.xla_conv import xla_conv

CASES = [
    (3, 1, 1, ((1, 1), (1, 1))),
    (3, 1, 4, ((4, 4), (4, 4))),
    (3, 2, 1, ((0, 1), (0, 2))),
    (5, 2, 2, ((4, 0), (3, 5))),
]


@pytest.mark.parametrize(("outputs", "pixels"), [(3, 50), (6, 1000)])  # rows in blocks or in one
@pytest.mark.parametrize(("size", "stride", "dilation", "padding"), CASES)
def test_products_per_tap_add_up(monkeypatch, size, stride, dilation, padding, pixels, outputs):
    monkeypatch.setattr(conv_gradients, "BLOCK_PIXELS", pixels)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 9, 12, 4), np.float32))
    kernel = jnp.asarray(rng.standard_normal((size, size, 4, outputs), np.float32))
    settings = (stride, dilation, padding)

    @jax.jit
    def gradients(x, kernel):
        y, backward = jax.vjp(lambda x, kernel: xla_conv(x, kernel, *settings), x, kernel)
        to_x = conv_gradients.input_gradient(x, kernel, y, *settings)
        to_kernel = conv_gradients.product_per_tap(x, y, (size, size), *settings)
        return (to_x, to_kernel), backward(y)

    for found, expected in zip(*gradients(x, kernel), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("outputs", [3, 6])  # fewer and more than the inputs: two ways round
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("size", "stride", "dilation", "padding"), CASES)
def test_blocks_of_rows_add_up(monkeypatch, size, stride, dilation, padding, rows, outputs):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 9, 12, 4), np.float32))
    kernel = jnp.asarray(rng.standard_normal((size, size, 4, outputs), np.float32))
    width = jax.eval_shape(lambda: xla_conv(x, kernel, stride, dilation, padding)).shape[2]
    row_bytes = 4 * 2 * width * size * size * 4
    monkeypatch.setattr(conv_gradients, "BLOCK_BYTES", rows * row_bytes)

    @jax.jit
    def gradients(x, kernel):
        y, backward = jax.vjp(lambda k: xla_conv(x, k, stride, dilation, padding), kernel)
        found = conv_gradients.product_per_rows(x, y, (size, size), stride, dilation, padding)
        return found, backward(y)[0]

    found, expected = gradients(x, kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
