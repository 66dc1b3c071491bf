"""Convolution along rows, the form for TPUs, against XLA's own on the CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from wsss_jax.ops import conv as module
from wsss_jax.ops.conv import conv
from wsss_jax.ops.sharding import data_mesh, target, traced_for

CASES = [  # batch, devices, size of the kernel, stride, dilation, padding
    (1, 1, 3, 1, 1, ((1, 1), (1, 1))),
    (4, 2, 3, 1, 2, ((2, 2), (2, 2))),
    (3, 3, 3, 2, 1, ((0, 1), (1, 2))),
    (2, 1, 3, 1, 4, ((4, 4), (4, 4))),
    (2, 2, 7, 2, 1, ((3, 3), (3, 3))),
    (2, 1, 3, 2, 2, ((2, 0), (1, 3))),
]


def _plain_and_rows(
    monkeypatch: pytest.MonkeyPatch, batch: int, devices: int, size: int, how: tuple[Any, ...]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Returns the result and both gradients of `conv`, as on a CPU and as on TPUs."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, 12, 11, 3), np.float32))
    kernel = jnp.asarray(rng.standard_normal((size, size, 3, 5), np.float32))

    def run() -> list[jax.Array]:
        def both(x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
            y, backward = jax.vjp(lambda x, kernel: conv(x, kernel, *how), x, kernel)
            return [y, *backward(jnp.cos(jnp.arange(y.size)).reshape(y.shape))]

        return jax.jit(both)(x, kernel)

    plain = run()
    monkeypatch.setattr(module, "target", lambda: ("tpu", devices))
    return plain, run()


@pytest.mark.parametrize(("batch", "devices", "size", "stride", "dilation", "padding"), CASES)
def test_rows_are_the_same_convolution(
    monkeypatch, batch, devices, size, stride, dilation, padding
):
    plain, rows = _plain_and_rows(monkeypatch, batch, devices, size, (stride, dilation, padding))
    for expected, found in zip(plain, rows, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("platform", "batch", "devices", "rows"),
    [("tpu", 4, 2, 6), ("tpu", 3, 1, 0), ("tpu", 3, 2, 0), ("cpu", 2, 2, 0), ("", 1, 1, 0)],
)
def test_rows_are_for_few_images_on_a_tpu(monkeypatch, platform, batch, devices, rows):
    monkeypatch.setattr(module, "target", lambda: (platform, devices))
    x, kernel = jnp.ones((batch, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    program = jax.make_jaxpr(lambda x, k: conv(x, k, padding=((1, 1), (1, 1))))(x, kernel)
    assert str(program).count("conv_general_dilated[") == (rows or 1)


def test_a_function_knows_its_devices_only_while_it_is_traced():
    seen: list[tuple[str, int]] = []

    def note(x: jax.Array) -> jax.Array:
        seen.append(target())
        return x

    function: Callable[[Any], Any] = jax.jit(traced_for(data_mesh(), note))
    function(1.0)
    note(jnp.ones(()))
    assert seen == [("cpu", jax.device_count()), ("", 1)]
    assert traced_for(data_mesh(), note).__name__ == "note"  # which names the compiled program


def test_a_mesh_without_images_is_no_target():
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("model",), axis_types=(AxisType.Auto,))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        assert target() == ("", 1)
