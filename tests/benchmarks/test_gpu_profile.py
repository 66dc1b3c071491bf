"""Where the time of a step goes on a device, from a trace of JAX."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import gpu_profile

PROGRAM = """HloModule jit_step

%fused (p: f32[8]) -> f32[8] {
  ROOT %neg.1 = f32[8]{0} negate(%p)
}
ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %custom.1 = (f32[8]{0}, u8[4]{0}) custom-call(%x), CALLED, metadata={op_name="step/b7/conv"}
  ROOT %loop_fusion.2 = f32[8]{0} fusion(%custom.1), FUSED, metadata={op_name="step/add"}
}
""".replace("CALLED", 'custom_call_target="__cudnn$convForward"').replace("FUSED", "calls=%fused")


def test_seconds_are_summed_by_kind_and_by_operation():
    spans = [
        ("custom.1", "sm90_kernel", 0.002),  # its operation tells what the kernel does not
        ("loop_fusion.2", "loop_fusion_2", 0.001),
        ("custom.1", "sm90_kernel", 0.004),
        ("loop_fusion.2", "loop_fusion_2", 0.001),
        ("", "Memcpy HtoD", 0.0002),
        ("gemm_fusion.3", "gemm_fusion_3", 0.0004),
    ]
    found = gpu_profile.summary(spans, 2, PROGRAM)
    assert found["kinds"] == pytest.approx(
        {
            "convolutions": 0.003,
            gpu_profile.REST: 0.001,
            "products": 0.0002,
            "transposing and copying": 0.0001,
        }
    )
    first, second, *_ = found["operations"]
    assert (first["operation"], first["of"]) == ("custom.1", "step/b7/conv")
    assert first["seconds"] == pytest.approx(0.003)
    assert first["what"].startswith("__cudnn$convForward (f32[8]{0}")
    assert (second["operation"], second["of"]) == ("loop_fusion.2", "step/add")
    assert found["device_seconds"] == pytest.approx(0.0043) and found["started"] == 3


def test_a_trace_of_this_device_is_read(tmp_path: Path):
    product = jax.jit(lambda x: jnp.tanh(x @ x).sum())
    x = jnp.ones((300, 300))
    product(x).block_until_ready()
    with jax.profiler.trace(str(tmp_path)):
        for _ in range(2):
            product(x).block_until_ready()
    spans = gpu_profile.spans(tmp_path)
    assert spans and all(operation and seconds >= 0 for operation, _, seconds in spans)
    text = product.lower(x).compile().as_text() or ""
    found = gpu_profile.summary(spans, 2, text)
    assert found["device_seconds"] > 0
    assert sum(found["kinds"].values()) == pytest.approx(found["device_seconds"])
