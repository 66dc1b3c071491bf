"""Costs read from compiled programs are those that can be counted by hand."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.toys.waiting import LONG
from wsss_jax.accelerators.chips import CHIPS, H100, V5E, V5P, chip_of
from wsss_jax.accelerators.compiled import ProgramCost, sent_bytes
from wsss_jax.accelerators.hlo import Collective, Instruction, Module

REPOSITORY = Path(__file__).resolve().parents[2]
N = 256
PROGRAM = """
import json

import jax
import jax.numpy as jnp

from wsss_jax.accelerators.compiled import ProgramCost
from wsss_jax.ops.sharding import data_mesh, replicated, sharded


def step(w, x):
    def sums(y, _):
        # A sum over the devices in each of five rounds.
        return y + jnp.mean(x, 0), None

    y, _ = jax.lax.scan(sums, jnp.zeros(x.shape[1]), None, length=5)
    return w - x.T @ x, y, x * 2


mesh = data_mesh()
whole, parts = replicated(mesh), sharded(mesh)
program = jax.jit(step, in_shardings=(whole, parts), out_shardings=(whole, whole, parts))
shapes = [jax.ShapeDtypeStruct(size, jnp.float32) for size in ((256, 256), (1024, 256))]
print(json.dumps(ProgramCost.of(program.lower(*shapes).compile()).to_json()))
"""


@pytest.fixture(scope="module")
def on_four() -> ProgramCost:
    """The cost of the program above for four devices, which only a process of its own can have."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY,
        env=dict(
            os.environ,
            XLA_FLAGS="--xla_force_host_platform_device_count=4",
            JAX_PLATFORMS="cpu",
            PYTHONPATH=str(REPOSITORY),
        ),
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert done.returncode == 0, done.stderr
    return ProgramCost.from_json(json.loads(done.stdout.splitlines()[-1]))


def test_a_sharded_program_is_read_per_device(on_four: ProgramCost):
    assert on_four.devices == 4
    # The arguments are one whole matrix and a quarter of another, and so are the results.
    assert on_four.arguments == 4 * (N * N + 1024 // 4 * N)
    assert on_four.outputs == pytest.approx(on_four.arguments + 4 * N, abs=64)
    assert on_four.flops == pytest.approx(2 * N * (1024 // 4) * N, rel=0.02)
    assert on_four.peak >= on_four.arguments
    assert on_four.unknown_loops == 0


def test_collectives_are_counted_with_their_bytes(on_four: ProgramCost):
    (reduced,) = on_four.collectives
    assert reduced.kind == "all-reduce"
    # The product, and the mean, which the compiler may take out of the loop and join with it.
    assert reduced.bytes in (4 * (N * N + N), 4 * (N * N + 5 * N))
    assert 1 <= reduced.count <= 6
    assert on_four.sent() == 1.5 * reduced.bytes
    assert on_four.sent(devices=1) == 0
    assert on_four.sent(devices=256) == pytest.approx(2 * reduced.bytes, rel=0.01)


def _cost(function: Any, *shapes: tuple[int, ...]) -> ProgramCost:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return ProgramCost.of(jax.jit(function).lower(*arguments).compile())


def test_every_round_of_a_loop_counts():
    def rounds(w, x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=7)[0]

    def nested(w, x):
        return jax.lax.scan(lambda x, _: (rounds(w, x), None), x, None, length=3)[0]

    def unrolled(w, x):
        for _ in range(7):
            x = jnp.tanh(x @ w)
        return x

    shapes = (N, N), (N, N)
    loop, plain, twice = (_cost(one, *shapes) for one in (rounds, unrolled, nested))
    assert plain.flops == pytest.approx(7 * 2 * N**3, rel=0.02)
    assert loop.flops == pytest.approx(plain.flops, rel=0.02)
    assert twice.flops == pytest.approx(3 * plain.flops, rel=0.02)
    assert loop.bytes_accessed == pytest.approx(plain.bytes_accessed, rel=0.3)


def test_a_convolution_in_a_loop_counts_like_one_outside():
    def conv(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def loop(x, kernel):
        def add(total, _):
            return total + conv(x + total.mean(), kernel), None

        start = jnp.zeros((2, 30, 30, 16))
        return jax.lax.scan(add, start, None, length=4)[0]

    shapes = (2, 32, 32, 8), (3, 3, 8, 16)
    one, four = _cost(conv, *shapes), _cost(loop, *shapes)
    assert one.flops == pytest.approx(2 * 2 * 30 * 30 * 16 * 9 * 8, rel=0.01)
    assert 4 * one.flops < four.flops < 4.6 * one.flops


def test_a_loop_of_unknown_length_is_told():
    def until(x):
        return jax.lax.while_loop(lambda x: x.sum() < 1e6, lambda x: 2 * x, x)

    assert _cost(until, (N,)).unknown_loops == 1


TPU = """
HloModule jit_f, is_scheduled=true, replica_count=2, num_partitions=4

%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8,128]{1,0:T(8,128)S(1)} get-tuple-element(%p), index=1
  %all-reduce.1 = f32[8,128]{1,0:T(8,128)} all-reduce(%x), replica_groups={}, to_apply=%add
  ROOT %t = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}) tuple(%i, %all-reduce.1)
}

%condition (p.1: (s32[], f32[8,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(7)
  %p.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

%inner (q: f32[8,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0:T(8,128)S(1)} parameter(0)
  ROOT %permuted = f32[8,128]{1,0:T(8,128)S(1)} collective-permute(%q), source_target_pairs={{0,1}}
}

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %copy-start = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %copy-done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %s = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}) tuple(%zero, %copy-done)
  %while.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}) while(%s), condition=%condition, body=%body
  %y = f32[8,128]{1,0:T(8,128)S(1)} get-tuple-element(%while.1), index=1
  %called = f32[8,128]{1,0:T(8,128)S(1)} call(%y), to_apply=%inner, frontend_attributes={a="b"}
  %gather = (f32[8,128], bf16[64,128]) all-gather-start(%y), dimensions={0}
  %done = bf16[64,128] all-gather-done(%gather)
  ROOT %negate = f32[8,128]{1,0:T(8,128)} negate(%y)
}
"""  # noqa: E501


def test_the_text_of_a_tpu_program():
    module = Module.parse(TPU)
    whole = 4 * 8 * 128
    assert module.devices == 8
    assert (module.entry, module.unknown_loops) == ("main", 0)
    assert module.collectives() == (
        Collective("all-gather", 1, 2 * 64 * 128),
        Collective("all-reduce", 7, 7 * whole),
        Collective("collective-permute", 1, whole),
    )
    # Outside the chip: the copy reads, every round writes, and the last two write.
    outside = whole + 7 * whole + (whole + 2 * 64 * 128) + whole
    inside = whole + 7 * whole + 2 * whole + whole
    assert module.off_chip_share() == pytest.approx(outside / (outside + inside))


@pytest.mark.parametrize(
    ("attributes", "called"),
    [
        ("to_apply=%add, frontend_attributes={inner=%no}", ("add",)),
        ("kind=kLoop, calls=%fused_computation.1, metadata={}", ("fused_computation.1",)),
        ("branch_computations={%one, %two.3}, sharding={replicated}", ("one", "two.3")),
    ],
)
def test_what_an_instruction_calls(attributes: str, called: tuple[str, ...]):
    assert Instruction("x", "f32[]", "call", (), attributes).called() == called


def test_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="expected a module of HLO"):
        Module.parse("HloModule nothing")


EXPECTED = """
HloModule jit_f, is_scheduled=true

%body (p: (s32[])) -> (s32[]) {
  %p = (s32[]) parameter(0)
  ROOT %a = (s32[]) fusion(%p), kind=kLoop, backend_config={"estimated_cycles":"10"}
}

%condition (p.1: (s32[])) -> pred[] {
  %p.1 = (s32[]) parameter(0)
  %five = s32[] constant(5)
  %i = s32[] get-tuple-element(%p.1), index=0
  ROOT %less = pred[] compare(%i, %five), direction=LT
}

%usual (q: f32[8]) -> f32[8] {
  %q = f32[8] parameter(0)
  ROOT %b = f32[8] fusion(%q), kind=kLoop, backend_config={"estimated_cycles":"200"}
}

%rare (q.1: f32[8]) -> f32[8] {
  %q.1 = f32[8] parameter(0)
  ROOT %c = f32[8] fusion(%q.1), kind=kLoop, backend_config={"estimated_cycles":"7000"}
}

ENTRY %main (x: f32[8], which: s32[], start: (s32[])) -> f32[8] {
  %x = f32[8] parameter(0)
  %which = s32[] parameter(1)
  %start = (s32[]) parameter(2)
  %loop = (s32[]) while(%start), condition=%condition, body=%body
  ROOT %d = f32[8] conditional(%which, %x, %x), branch_computations={%usual, %rare}
}
"""


def test_the_compilers_estimate_has_every_round_and_the_usual_branch():
    module = Module.parse(EXPECTED)
    assert module.cycles() == 5 * 10 + 200
    assert module.runs["rare"] == 1  # which the other counts have

    cost = ProgramCost(1, 197e10, 1.0, 1.0, 1, 1, 1, 1, (), 0, cycles=30_000_000)
    assert cost.expected_seconds(V5E) == pytest.approx(0.02)  # at 1.5 GHz
    assert cost.expected_seconds(H100) is None
    assert dataclasses.replace(cost, cycles=0).expected_seconds(V5E) is None


def test_the_clock_of_a_tpu_fits_its_arithmetic():
    for chip in CHIPS:
        if chip.mhz:  # FLOPs of a cycle are those of whole matrix units of 128 x 128
            units = chip.bf16_tflops * 1e6 / chip.mhz / (2 * 128 * 128)
            assert units == pytest.approx(round(units), rel=0.01) and round(units) in (4, 8, 16)


def test_what_binds_is_the_longest_time():
    cost = ProgramCost(8, 197e12, 2 * 819e9, 819e9, 1, 1, 1, 1, (), 0)
    even = cost.roofline(V5E)
    assert (even.arithmetic, even.memory, even.interconnect) == (1.0, 1.0, 0.0)
    exchanged = Collective("all-reduce", 2, int(400e9))
    slow = dataclasses.replace(cost, collectives=(exchanged,)).roofline(V5E)
    assert slow.binds == "interconnect" and slow.seconds == pytest.approx(2 * 400 * 7 / 8 / 200)
    assert cost.roofline(V5P).binds in ("memory", "arithmetic")


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("all-gather", 750),
        ("reduce-scatter", 3000),
        ("all-to-all", 750),
        ("collective-permute", 1000),
    ],
)
def test_what_a_ring_sends(kind: str, sent: float):
    assert sent_bytes([Collective(kind, 3, 1000)], 4) == sent


def test_chips_are_found_by_what_jax_calls_them():
    found = [chip_of(kind) for kind in ("TPU v5 lite", "TPU v5", "NVIDIA H100 80GB HBM3")]
    assert [chip and chip.name for chip in found] == ["v5e", "v5p", "H100"]
    for other in ("cpu", "NVIDIA L40S", "NVIDIA A100-SXM4-40GB", "NVIDIA H100 PCIe"):
        assert chip_of(other) is None
    assert len({chip.name for chip in CHIPS}) == len(CHIPS)
