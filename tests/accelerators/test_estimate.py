"""Estimates find how many images fit, and say in words what is known."""

from typing import Any

import pytest

from wsss_jax.accelerators.chips import V5E
from wsss_jax.accelerators.compiled import ProgramCost
from wsss_jax.accelerators.estimate import (
    Estimate,
    duration,
    estimate,
    gib,
    lines,
    pixel_lines,
    quantity,
    total,
)
from wsss_jax.accelerators.hlo import Collective
from wsss_jax.accelerators.programs import Compiler, DeviceProgram, TooLarge, most_images

GIB = 2**30


class Affine(Compiler):
    """Stands for a compiler: programs need 2 GiB and `each` GiB per image on each of 4 devices."""

    def __init__(self, each: float, seconds: float = 100.0, curve: float = 0.0):
        super().__init__("", None, lambda message: None)
        self.each, self.curve, self.last_seconds = each, curve, seconds
        self.asked: list[int] = []

    def cost(self, label: str, lowered: Any) -> ProgramCost | TooLarge:
        images = lowered // 4
        self.asked.append(images)
        memory = int((2 + self.each * images + self.curve * images**2) * GIB)
        if memory > V5E.usable_gib * GIB:
            return TooLarge(memory)
        work = 1e12 * images
        return ProgramCost(
            *(4, work, work / 50, work / 100, memory, 1, 1, 1),
            collectives=(Collective("all-reduce", 3, 4000),),
            unknown_loops=0,
            cycles=30_000_000 * images,
        )


def program(images: int, asked: int = 0, executions: int | None = 10, **changed: Any):
    lower: Any = lambda images: images  # noqa: E731
    fields: dict[str, Any] = dict(growing=True) | changed
    return DeviceProgram("step", lower, images, asked or images, executions, 4, **fields)


def found(program: DeviceProgram, compiler: Compiler) -> Estimate:
    return estimate("train", program, V5E, compiler)


def test_the_largest_batch_is_predicted_from_two():
    compiler = Affine(each=1.5)
    one = found(program(8), compiler)
    assert compiler.asked == [2, 4]
    # 2 + 9 · 1.5 = 15.5 of 15.75 GiB.
    assert (one.images, one.most, one.how) == (8, 9, "predicted from 2 and 4")


def test_a_prediction_is_compiled_where_that_is_quick():
    compiler = Affine(each=1.5, seconds=1.0)
    one = found(program(8), compiler)
    assert compiler.asked == [2, 4, 9]
    assert (one.most, one.how) == (9, "predicted from 2 and 4, and compiled")


def test_a_prediction_that_does_not_fit_is_corrected():
    compiler = Affine(each=1.0, seconds=1.0, curve=0.05)
    one = found(program(8), compiler)
    (*_, tried), most = compiler.asked, one.most
    assert most and most < tried and 2 + most + 0.05 * most**2 <= V5E.usable_gib


def test_a_batch_that_does_not_fit_is_made_smaller():
    compiler = Affine(each=3.0)
    one = found(program(32), compiler)
    assert compiler.asked == [8, 4]
    assert (one.images, one.needed, one.most) == (16, 26 * GIB, 4)
    assert one.executions == 20  # The same images in smaller batches.
    text = "\n".join(lines("train", one))
    assert "32 images do not fit (they need 26 GiB, more than 15.75 GiB per chip)" in text
    assert "up to 4 images per chip fit (predicted from 4 and 8)" in text


def test_a_program_of_which_nothing_fits():
    one = found(program(8), Affine(each=20.0))
    assert isinstance(one.cost, TooLarge) and one.seconds is None
    text = lines("train", one)[-1]
    assert text == "  memory       does not fit: one image per chip needs 22 GiB of 15.75 GiB"
    assert total([one]) is None


def test_only_growing_programs_are_compiled_twice():
    compiler = Affine(each=1.0)
    one = found(program(8, growing=False), compiler)
    assert compiler.asked == [2] and one.most is None


def test_the_text_of_an_estimate():
    one = found(program(8, asked=6, remarks=("images are assumed",)), Affine(each=1.5))
    assert lines("train_two", one) == [
        "step: 8 images (2 on each of 4 chips)",
        "  images are assumed",
        "  6 images cannot be sharded over 4 chips, so 8 are run: --config.train_two.batch_size=8",
        "  memory       5 GiB of 15.75 GiB per chip at the peak; up to 9 images per chip fit"
        " (predicted from 2 and 4)",
        "  per image    1 TFLOP, 20 GB accessed, 50 % of it in HBM",
        "  collectives  3 all-reduce (4 kB)",
        "  roofline     24.4 ms, memory binds (arithmetic 10.2, memory 24.4, interconnect 3e-05"
        " ms)",
        "  compiler     expects 40 ms without exchanges: 25 % of the arithmetic that the chip can"
        " do",
        "  in all       10 times, 0.244 s at best; 0.4 s as expected",
    ]
    assert total([one, one]) == pytest.approx(2 * 10 * 20 / 819)
    unknown = found(program(8, executions=None), Affine(each=1.5))
    assert lines("train", unknown)[-1] == "  in all       unknown: the images are not counted"


def test_batches_by_pixels_are_predicted_from_two_shapes():
    def of(pixels: int, memory: float) -> Estimate:
        cost = ProgramCost(4, 1.0, 1.0, 1.0, int(memory * GIB), 1, 1, 1, (), 0)
        return Estimate(program(8, growing=False, pixels=pixels), V5E, 8, cost)

    # 1 GiB and another one for every 2,000 pixels; a chip has two images.
    (line,) = pixel_lines("cam", [of(1000, 2), of(2000, 3), of(4000, 5)])
    assert line == (
        "batches of up to 29,500 padded pixels per chip fit (predicted from 2,000 and 8,000):"
        " --config.cam.batch_pixels"
    )
    assert pixel_lines("cam", [of(1000, 2)]) == pixel_lines("walk", [of(0, 2), of(0, 3)]) == []


def test_memory_that_does_not_grow_has_no_largest_batch():
    assert most_images([(1, 10), (2, 10)], 100) is None
    assert most_images([(1, 10), (2, 20)], 100) == 10
    assert most_images([(1, 90), (2, 180)], 40) == 0


def test_quantities_are_short():
    assert [quantity(n, "B") for n in (26.41e9, 950, 1.5e12)] == ["26.4 GB", "950 B", "1.5 TB"]
    assert gib(3 * GIB) == "3 GiB"
    assert [duration(s) for s in (0.5, 600, 7200)] == ["0.5 s", "10 min", "2 h"]
