"""Winograd's algorithm against XLA's convolution and against a sum in double precision."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.ops import winograd
from wsss_jax.ops.conv import conv
from wsss_jax.ops.winograd import (
    is_worthwhile,
    winograd_conv,
    winograd_input_gradient,
    winograd_kernel_gradient,
)
from wsss_jax.ops.xla_conv import xla_conv

ONE = ((1, 1), (1, 1))


@pytest.mark.parametrize(
    ("size", "dilation", "padding"),
    [
        ((7, 9), 1, ONE),
        ((8, 6), 2, ((2, 2), (2, 2))),
        ((13, 11), 4, ((4, 4), (4, 4))),
        ((3, 5), 4, ((4, 4), (4, 4))),  # fewer pixels than offsets
        ((9, 7), 1, ((0, 2), (1, 0))),
        ((6, 5), 1, ((0, 0), (0, 0))),
        ((6, 5), 1, ((3, 2), (2, 4))),  # more padding than the kernel reaches
        ((1, 1), 1, ONE),
    ],
)
def test_equals_the_convolution_and_its_gradients(size, dilation, padding):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, *size, 5), np.float32))
    kernel = jnp.asarray(rng.standard_normal((3, 3, 5, 4), np.float32))
    shape = jax.eval_shape(lambda: xla_conv(x, kernel, 1, dilation, padding)).shape
    g = jnp.asarray(rng.standard_normal(shape, np.float32))

    @jax.jit
    def both(x, kernel, g):
        found = (
            winograd_conv(x, kernel, dilation, padding),
            winograd_input_gradient(kernel, g, dilation, padding),
            winograd_kernel_gradient(x, g, dilation, padding),
        )
        y, backward = jax.vjp(lambda x, k: xla_conv(x, k, 1, dilation, padding), x, kernel)
        return found, (y, *backward(g))

    for found, expected in zip(*both(x, kernel, g), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_is_as_exact_as_a_direct_convolution():
    """With many channels, rounding stays within twice that of XLA's convolution."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 8, 9, 256), np.float32)
    kernel = rng.standard_normal((3, 3, 256, 256), np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(np.float64)
    exact = sum(
        padded[:, i : i + 8, j : j + 9] @ kernel[i, j].astype(np.float64)
        for i in range(3)
        for j in range(3)
    )

    def error(y):
        return np.abs(np.asarray(y) - exact).max() / np.abs(exact).max()

    direct = error(jax.jit(lambda x, k: xla_conv(x, k, 1, 1, ONE))(x, kernel))
    tiles = error(jax.jit(lambda x, k: winograd_conv(x, k, 1, ONE))(x, kernel))
    assert 0 < tiles < max(2 * direct, 2e-6)


def test_applies_where_it_is_faster():
    wide, pixels = (3, 3, 256, 256), (2, 16, 16, 256)
    assert is_worthwhile(wide, pixels, 1, jnp.float32)
    assert not is_worthwhile(wide, (1, 16, 16, 256), 1, jnp.float32)
    assert not is_worthwhile((3, 3, 255, 256), pixels, 1, jnp.float32)
    assert not is_worthwhile((5, 5, 256, 256), pixels, 1, jnp.float32)
    assert not is_worthwhile(wide, pixels, 2, jnp.float32)
    assert not is_worthwhile(wide, pixels, 1, jnp.bfloat16)


@pytest.mark.parametrize("sizes", ["1, h, w, 256", "n, 40, 40, 256", "n, h, w, 256"])
def test_networks_for_images_of_any_size_can_be_exported(sizes):
    x = jax.ShapeDtypeStruct(jax.export.symbolic_shape(sizes), jnp.float32)
    kernel = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3, 256, 256), np.float32))
    convolve = jax.jit(lambda x: conv(x, kernel, padding=ONE))
    exported = jax.export.export(convolve, platforms=("cpu", "tpu"))(x)
    image = jnp.asarray(np.random.default_rng(1).standard_normal((1, 40, 40, 256), np.float32))
    expected = np.asarray(convolve(image))
    np.testing.assert_allclose(exported.call(image), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("size", [(6, 7), (1, 3)])  # enough pixels, and too few
def test_the_layer_uses_it_on_cpus_alone(monkeypatch, size):
    monkeypatch.setattr(winograd, "CHANNELS", 128)
    monkeypatch.setattr(winograd, "PIXELS", 8)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((1, *size, 128), np.float32))
    kernel = jnp.asarray(rng.standard_normal((3, 3, 128, 129), np.float32))

    def gradients(convolve):
        def squares(x, kernel):
            return jnp.square(convolve(x, kernel, 1, 1, ONE)).sum()

        return jax.jit(jax.value_and_grad(squares, (0, 1)))

    ours = gradients(conv)
    expected = gradients(xla_conv)(x, kernel)
    for found, one in zip(*map(jax.tree.leaves, (ours(x, kernel), expected)), strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-4, atol=1e-5 * float(jnp.abs(one).max()))

    def convolutions(platform):
        program = jax.export.export(ours, platforms=(platform,))(x, kernel).mlir_module()
        return program.count("stablehlo.convolution")

    assert convolutions("tpu") == convolutions("cuda") == 3
    # With few pixels, the kernel gradient alone is a product of matrices.
    assert convolutions("cpu") == (0 if size == (6, 7) else 2)
