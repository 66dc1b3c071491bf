"""Operations that differ between platforms are right in programs that are written for each."""

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
