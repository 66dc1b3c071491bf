"""GPUs that are only named: what JAX's plugin for CUDA compiles for them, and how it is counted."""

import importlib.util
import json
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from tests.accelerators.elsewhere import compiled, run
from wsss_jax.accelerators import gpu, topology
from wsss_jax.accelerators.chips import H100
from wsss_jax.accelerators.compiled import ProgramCost
from wsss_jax.accelerators.estimate import estimate, lines
from wsss_jax.accelerators.hlo import Module
from wsss_jax.accelerators.programs import Compiler, DeviceProgram, TooLarge
from wsss_jax.errors import UserError
from wsss_jax.pipeline.topology_report import Target

PLUGIN = any(importlib.util.find_spec(f"jax_cuda{number}_plugin") for number in (12, 13))


@pytest.fixture(autouse=True)
def no_share(monkeypatch: pytest.MonkeyPatch):
    for variable in gpu.SHARES:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    "name", ["h100", "H100:", "l4:one", "h100:0", "h100:9", "h100:2x4", "a100:1x1x1"]
)
def test_gpus_are_those_of_one_machine(name: str):
    with pytest.raises(UserError, match=r"expected the number of GPUs of one machine, \w+:1 to"):
        topology.topology_devices(name)


def test_programs_get_the_share_of_the_memory_that_jax_takes(monkeypatch: pytest.MonkeyPatch):
    whole = H100.usable_gib
    assert topology.chip_of_topology("H100:8").usable_gib == pytest.approx(0.75 * whole, abs=0.01)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    assert topology.chip_of_topology("h100:8").usable_gib == pytest.approx(0.5 * whole, abs=0.01)


@pytest.mark.parametrize("share", ["80%", "1.5", "0", "nan"])
def test_a_share_that_is_none_is_refused_before_the_plugin_is_asked(
    share: str, monkeypatch: pytest.MonkeyPatch
):
    def asked(**options: Any):
        raise AssertionError("expected a refusal first")

    monkeypatch.setattr(gpu.topologies, "get_topology_desc", asked)
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", share)
    with pytest.raises(UserError, match="share above 0 and at most 1 in XLA_CLIENT_MEM_FRACTION"):
        Target.named("h100:8")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    with pytest.raises(UserError, match="found both: unset one of them"):
        Target.named("h100:8")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("Unknown backend cuda"), "found none: run pip install jax-cuda13-plugin=="),
        (jax.errors.JaxRuntimeError("no\nclient"), "found no client: install the plugin of this"),
    ],
)
def test_what_is_missing_is_told(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch):
    def missing(**options: Any):
        assert options["platform"] == "cuda" and options["topology"] == "1x1x4"
        raise error

    monkeypatch.setattr(gpu.topologies, "get_topology_desc", missing)
    with pytest.raises(UserError, match=message) as refused:
        topology.topology_devices("h200:4")
    assert "\n" not in str(refused.value)


CONVOLUTION = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f"
CALLED = 'custom_call_target="__c'
PRODUCT = (
    'backend_config={"gemm_backend_config":{"dot_dimension_numbers":'
    '{"lhs_contracting_dimensions":["0","2"],"rhs_contracting_dimensions":["0"]}}}'
)
CALLS = f"""HloModule jit_step, num_partitions=1

%condition (i: s32[]) -> pred[] {{
  %i = s32[] parameter(0)
  %five = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %five), direction=LT
}}

%body (j: s32[]) -> s32[] {{
  %j = s32[] parameter(0)
  ROOT %next = s32[] fusion(%j), kind=kLoop
}}

%usual (q: f32[8]) -> f32[8] {{
  %q = f32[8] parameter(0)
  %one = f32[8] fusion(%q), kind=kLoop
  ROOT %two = f32[8] copy(%one)
}}

%rare (r: f32[8]) -> f32[8] {{
  %r = f32[8] parameter(0)
  ROOT %three = f32[8] copy(%r)
}}

ENTRY %main (x: bf16[2,5,7,8], k: bf16[16,3,3,8], y: bf16[2,5,7,16], z: s32[]) -> f32[8] {{
  %x = bf16[2,5,7,8] parameter(0)
  %k = bf16[16,3,3,8] parameter(1)
  %y = bf16[2,5,7,16] parameter(2)
  %z = s32[] parameter(3)
  %f = (bf16[2,5,7,16], u8[99]) custom-call(%x, %k), {CONVOLUTION}, {CALLED}udnn$convForward"
  %s = (bf16[2,5,7,8], u8[0]) custom-call(%y, %k), {CONVOLUTION}, {CALLED}udnn$convBackwardInput"
  %w = (bf16[16,3,3,8], u8[0]) custom-call(%x, %y), {CONVOLUTION}, {CALLED}udnn$convBackwardFilter"
  %p = (f32[5,8,6], s8[9]) custom-call(%x, %k), {CALLED}ublas$lt$matmul", {PRODUCT}
  %o = f32[8] custom-call(%x), {CALLED}ub$sort"
  %a = f32[8] all-reduce-start(%o), to_apply=%usual
  %e = f32[8] all-reduce-done(%a)
  %loop = s32[] while(%z), condition=%condition, body=%body
  ROOT %d = f32[8] conditional(%z, %o, %o), branch_computations={{%usual, %rare}}
}}
"""


def test_calls_of_libraries_are_counted_by_their_shapes():
    one = 2 * (2 * 5 * 7 * 16) * (3 * 3 * 8)  # the same for each of the three convolutions
    product = 2 * (5 * 8 * 6) * (2 * 7)
    assert Module.parse(CALLS).library_flops() == 3 * one + product


def test_programs_are_counted_with_every_round_and_the_usual_branch():
    # Calls, rounds, the usual branch, and an exchange with a start and an end.
    assert Module.parse(CALLS).launches() == 5 + 5 + 2 + 1


def test_bytes_of_calls_of_libraries_are_not_those_that_xla_tells():
    class Compiled(jax.stages.Compiled):
        """A program on a GPU at hand: XLA counts −1 for a call."""

        def __init__(self):
            pass

        def cost_analysis(self) -> dict[str, float]:
            return {"flops": 100.0, "bytes accessed": -7.0}

        def memory_analysis(self) -> Any:
            sizes = "peak_memory", "argument_size", "output_size", "temp_size"
            return SimpleNamespace(**{f"{name}_in_bytes": 1 for name in sizes})

        def as_text(self) -> str:
            return CALLS

    cost, module = ProgramCost.of(Compiled()), Module.parse(CALLS)
    assert cost.bytes_accessed == module.work()[1] > 2 * 2 * 5 * 7 * 16
    more, _ = module.loop_factors()
    assert cost.flops == pytest.approx(100 * more + module.library_flops())


class Growing(Compiler):
    """Stands for the compiler of GPUs, which refuses nothing: 10 GiB and 2 GiB per image."""

    def cost(self, label: str, lowered: Any) -> ProgramCost | TooLarge:
        self.last_seconds = 0.0
        memory = (10 + 2 * lowered) * 2**30
        return ProgramCost(1, 1e12, 1e9, 1e9, memory, 1, 1, 1, (), 0, launches=1234)


def test_a_program_that_a_gpu_cannot_hold_gets_fewer_images():
    lower: Any = lambda images: images  # noqa: E731
    program = DeviceProgram("step", lower, 64, 64, 10, 1, growing=True)
    compiler = Growing("", None, lambda message: None)
    found = estimate("train", program, H100, compiler)  # of 79.1 GiB
    assert found.images == 32 and found.needed == 138 * 2**30 and found.most == 34
    text = "\n".join(lines("train", found))
    assert "64 images do not fit (they need 138 GiB, more than 79.1 GiB per chip)" in text
    assert "launches     1,234 programs one after the other" in text


GRADIENTS = """
import re
from wsss_jax.accelerators import topology
topology.without_devices()
import jax, jax.numpy as jnp
from wsss_jax.ops.conv import conv
from wsss_jax.ops.depthwise import depthwise_conv
from wsss_jax.ops.sharding import data_mesh, sharded

def loss(kernels, x):
    x = conv(x, kernels[0], 1, 2, ((2, 2), (2, 2)))
    return depthwise_conv(x, kernels[1], 1, 4, ((4, 4), (4, 4))).var()

name = "h100:1"
placement = sharded(data_mesh(topology.topology_devices(name)))
shapes = (3, 3, 128, 256), (3, 3, 1, 256), (8, 21, 26, 128)
*kernels, x = (jax.ShapeDtypeStruct(s, jnp.bfloat16, sharding=placement) for s in shapes)
lowered = jax.jit(jax.grad(loss)).trace(kernels, x).lower(lowering_platforms=("cuda",))
text = lowered.compile(topology.compiler_options(name)).as_text()
calls = [line for line in text.splitlines() if "__cudnn$conv" in line]
print("largest", max(int(n) for line in calls for n in re.findall(r"size=(\\d+)x", line)))
print("gradients", sum("convBackwardFilter" in line for line in calls))
"""


@pytest.mark.slow
@pytest.mark.skipif(not PLUGIN, reason="JAX's plugin for CUDA is not installed")
def test_kernel_gradients_of_dilated_convolutions_are_those_of_cudnn():
    """XLA's own form is a convolution whose kernel is as large as the image."""
    done = run(GRADIENTS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["largest 3", "gradients 2"]


TWO_SIZES = """
from wsss_jax.accelerators import topology
topology.without_devices()
from tests.toys import light_methods
from wsss_jax.ops.sharding import data_mesh
from wsss_jax.training.optimizer import OptimizerSettings
from wsss_jax.training.step import lower_train_step

name = "h100:1"
method = light_methods.make("ssenet", dropout=0.0, dtype="bfloat16")
batch = method.batch_spec().shapes(2, 64, method.num_classes)
mesh = data_mesh(topology.topology_devices(name))
lowered = lower_train_step(method, OptimizerSettings(lr=0.1), batch, mesh)
text = lowered.compile(topology.compiler_options(name)).as_text()
print(text.count("custom_call_target=") > 10, text.count(" concatenate("))
"""


@pytest.mark.slow
@pytest.mark.skipif(not PLUGIN, reason="JAX's plugin for CUDA is not installed")
def test_pointwise_convolutions_of_two_image_sizes_copy_no_images():
    done = run(TWO_SIZES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True 0"]


@pytest.mark.slow
@pytest.mark.skipif(not PLUGIN, reason="JAX's plugin for CUDA is not installed")
def test_the_compiler_of_gpus_on_a_toy_recipe():
    names = "h100:1", "a100:4", "l4:2"
    done = compiled(*names)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["backend"] == "cpu"
    assert [found[name]["devices"] for name in names] == [1, 4, 2]
    for name in names:
        cost = found[name]
        # The optimizer's arithmetic comes on top of the loss's and the gradient's.
        assert cost["counted"] < cost["flops"] < 1.3 * cost["counted"]
        assert cost["peak"] > cost["arguments"] > 0 and 100 < cost["launches"] < 1500
    assert not found["h100:1"]["collectives"]
    for name in names[1:]:
        assert "all-reduce" in {one["kind"] for one in found[name]["collectives"]}
