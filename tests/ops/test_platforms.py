"""Operations that differ between platforms are right in programs that are written for each."""

import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.ops.conv import conv
from wsss_jax.ops.depthwise import depthwise_conv
from wsss_jax.ops.resize import resize_bilinear


def _operations(x: jax.Array, wide: jax.Array, deep: jax.Array) -> jax.Array:
    x = conv(x, wide, 2, 1, ((1, 1), (1, 1)))
    x = depthwise_conv(x, deep, 1, 2, ((2, 2), (2, 2)))
    return resize_bilinear(x, (9, 11), align_corners=True)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_programs_for_other_platforms_compute_the_same(platform: str):
    """The program of another platform is plain arithmetic, which also runs on the CPU."""
    rng = np.random.default_rng(0)
    shapes = (2, 12, 10, 128), (3, 3, 128, 128), (3, 3, 1, 128)
    inputs = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    expected = jax.jit(_operations)(*inputs)

    anywhere = [jax.export.DisabledSafetyCheck.platform()]
    written = jax.export.export(
        jax.jit(_operations), platforms=(platform,), disabled_checks=anywhere
    )(*inputs)
    single = written.mlir_module()
    assert "feature_group_count = 128" in single and "gather" not in single
    np.testing.assert_allclose(jax.jit(written.call)(*inputs), expected, rtol=1e-3, atol=1e-3)

    everywhere = jax.export.export(jax.jit(_operations), platforms=("cpu", platform))(*inputs)
    text = everywhere.mlir_module()
    assert "feature_group_count = 128" in text and "gather" in text and "stablehlo.case" in text
    found = jax.jit(everywhere.call)(*inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def _loss(kernels: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    dense, deep = kernels
    x = conv(x, dense, 1, 2, ((2, 2), (2, 2)))
    return jnp.sum(jnp.square(depthwise_conv(x, deep, 1, 3, ((3, 3), (3, 3)))))


def test_gradients_of_dilated_kernels_are_not_dilated_on_gpus():
    """Only then does XLA take cuDNN's kernel gradients."""
    rng = np.random.default_rng(0)
    shapes = (3, 3, 128, 128), (3, 3, 1, 128), (2, 9, 10, 128)
    *kernels, x = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    inputs = (tuple(kernels), x)
    gradients = jax.jit(jax.grad(_loss))
    anywhere = [jax.export.DisabledSafetyCheck.platform()]
    written = {
        platform: jax.export.export(gradients, platforms=(platform,), disabled_checks=anywhere)(
            *inputs
        )
        for platform in ("cuda", "rocm", "tpu")
    }
    # XLA's kernel gradient of a dilated convolution has a stride instead.
    strided = {name: _strides(one.mlir_module()) for name, one in written.items()}
    assert strided == {"cuda": [], "rocm": [], "tpu": ["2, 2", "3, 3"]}
    expected = gradients(*inputs)
    for one in written.values():
        for found, own in zip(jax.jit(one.call)(*inputs), expected, strict=True):
            np.testing.assert_allclose(found, own, rtol=1e-3, atol=1e-3 * np.abs(own).max())


def _strides(text: str) -> list[str]:
    found = re.findall(r"stride = \[(\d+, \d+)\]", text)
    return sorted(stride for stride in found if stride != "1, 1")
