"""The dense convolution against XLA's own, forward and backward."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.ops import conv as module
from wsss_jax.ops.conv import conv
from wsss_jax.ops.xla_conv import xla_conv

CASES = [
    (3, 1, 1, ((1, 1), (1, 1))),
    (3, 1, 4, ((4, 4), (4, 4))),
    (3, 2, 1, ((0, 1), (0, 2))),
    (5, 2, 2, ((4, 0), (3, 5))),
    (1, 2, 1, ((0, 0), (0, 0))),
    (1, 1, 1, ((1, 0), (0, 2))),
]


@pytest.mark.parametrize(("size", "stride", "dilation", "padding"), CASES)
def test_equals_the_automatic_derivative(monkeypatch, size, stride, dilation, padding):
    monkeypatch.setattr(module, "WIDE", 4)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 12, 4), np.float32)
    kernel = rng.standard_normal((size, size, 4, 6), np.float32)
    settings = (stride, dilation, padding)
    shape = jax.eval_shape(lambda: xla_conv(jnp.asarray(x), jnp.asarray(kernel), *settings)).shape
    g = rng.standard_normal(shape, np.float32)

    def with_gradients(function):
        def run(x, kernel):
            y, backward = jax.vjp(lambda x, kernel: function(x, kernel, *settings), x, kernel)
            return y, *backward(jnp.asarray(g))

        return jax.jit(run)(x, kernel)

    for own, reference in zip(with_gradients(conv), with_gradients(xla_conv), strict=True):
        np.testing.assert_allclose(own, reference, atol=1e-4)


@pytest.mark.parametrize(("channels", "products"), [(module.WIDE, 1), (module.WIDE - 1, 0)])
def test_only_wide_kernels_get_a_product_of_matrices(channels, products):
    x, kernel = jnp.ones((1, 4, 4, channels)), jnp.ones((3, 3, channels, 128))
    gradient = jax.jit(jax.grad(lambda k: conv(x, k, padding=((1, 1), (1, 1))).sum()))
    assert gradient.lower(kernel).as_text().count("stablehlo.dot_general") == products


@pytest.mark.parametrize(
    ("inputs", "outputs", "pixels", "stride", "products"),
    [
        (256, 512, 1600, 1, ["4x400x512", "4x400x256", "4x256x512"]),  # Winograd's algorithm
        (256, 512, 6400, 2, ["1600x256", "256x512"]),  # a product per tap for both gradients
        (256, 512, 16, 1, ["16x256", "2304x512"]),  # small maps: all taps in one product
        (256, 256, 6400, 2, ["256x256"]),  # only the kernel gradient
        (256, 255, 1600, 1, ["255x2304"]),
    ],
)
def test_the_form_of_the_gradients_follows_the_size(inputs, outputs, pixels, stride, products):
    x = jnp.ones((1, 4, pixels // 4, inputs))
    kernel = jnp.ones((3, 3, inputs, outputs))

    def gradients(x, kernel):
        def variance(x, kernel):
            return conv(x, kernel, stride, padding=((1, 1), (1, 1))).var()

        return jax.grad(variance, (0, 1))(x, kernel)

    text = jax.jit(gradients).lower(x, kernel).as_text()
    found = re.findall(r"stablehlo.dot_general.*-> tensor<(\w+)xf32>", text)
    assert found == products
    assert text.count("stablehlo.convolution") == 3 - len(products)


def test_a_pointwise_kernel_is_a_product_of_matrices():
    x, kernel = jnp.ones((2, 4, 4, 3)), jnp.ones((1, 1, 3, 5))
    text = jax.jit(jax.grad(lambda k: conv(x, k).sum())).lower(kernel).as_text()
    assert "stablehlo.convolution" not in text
    assert "tensor<32x3xf32>" in text


def test_keeps_the_dtype(monkeypatch):
    monkeypatch.setattr(module, "WIDE", 1)
    x, kernel = jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 2), jnp.bfloat16)
    y, backward = jax.vjp(lambda k: conv(x, k), kernel)
    assert y.dtype == jnp.bfloat16
    assert backward(y)[0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(y, np.float32), 18)
