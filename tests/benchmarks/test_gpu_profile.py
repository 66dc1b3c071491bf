"""Where the time of a step goes on a device, from a trace of JAX."""

from pathlib import Path
from types import SimpleNamespace

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


def test_what_starts_an_operation_is_not_counted_beside_it():
    def event(name: str, milliseconds: float, **stats: str):
        return SimpleNamespace(name=name, duration_ns=1e6 * milliseconds, stats=stats.items())

    def plane(name: str, **lines: list[SimpleNamespace]):
        held = [SimpleNamespace(name=line, events=events) for line, events in lines.items()]
        return SimpleNamespace(name=name, lines=held)

    kernel = event("sm90", 2.0, hlo_op="custom.1")
    start = event("cuLaunchKernel", 0.1, hlo_op="custom.1")
    host = plane("/host:CPU", threads=[start, event("python", 9.0)])
    device = plane("/device:GPU:0", Stream_1=[kernel, event("Memcpy", 1.0)], XLA_Ops=[kernel])
    found = gpu_profile.executed([host, device])
    assert found == [("custom.1", "sm90", 0.002), ("", "Memcpy", 0.001)]
    assert gpu_profile.executed([host]) == [("custom.1", "cuLaunchKernel", 0.0001)]


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
