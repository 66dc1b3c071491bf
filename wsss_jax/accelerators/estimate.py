"""What the programs of a stage cost on a kind of chip: memory, traffic, and time at best."""

import dataclasses
from collections.abc import Sequence

from wsss_jax.accelerators.chips import Chip
from wsss_jax.accelerators.compiled import ProgramCost, Roofline
from wsss_jax.accelerators.programs import Compiler, DeviceProgram, TooLarge, most_images

_QUICK = 20.0
"""The seconds up to which compiling is worth it only to verify a prediction."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a program costs on chips.

    Attributes:
      program: the program.
      chip: the kind of chip.
      images: the number of images of an execution here: that of the program, or fewer if these do
        not fit.
      cost: the cost of an execution, or the memory that a single image per device lacks.
      needed: the bytes per device for all images of the program if they do not fit, as far as the
        compiler tells.
      most: the most images per device that fit, if it is known.
      how: how `most` was found.
    """

    program: DeviceProgram
    chip: Chip
    images: int
    cost: ProgramCost | TooLarge
    needed: int | None = None
    most: int | None = None
    how: str = ""

    @property
    def roofline(self) -> Roofline | None:
        """The time of an execution at best, or None if nothing fits."""
        return None if isinstance(self.cost, TooLarge) else self.cost.roofline(self.chip)

    @property
    def executions(self) -> float | None:
        """How often the stage executes the program, more often with fewer images."""
        known = self.program.executions
        return None if known is None else known * self.program.images / self.images

    @property
    def seconds(self) -> float | None:
        """The time of all executions at best, or None if it is unknown."""
        if self.roofline is None or self.executions is None:
            return None
        return self.roofline.seconds * self.executions


def estimate(label: str, program: DeviceProgram, chip: Chip, compiler: Compiler) -> Estimate:
    """Compiles a program, with fewer images if they do not fit, and returns what it costs.

    If the program is `growing`, the most images that fit are predicted from two compiled sizes, for
    memory is nearly affine in the number of images. The prediction is compiled if that is quick.
    """
    devices, limit = program.devices, chip.usable_gib * 2**30
    peaks: dict[int, int] = {}
    too_large: list[int] = []

    def compiled(each: int) -> ProgramCost | TooLarge:
        images = each * devices
        name = f"{label}, {program.name}, {images} images"
        found = compiler.cost(name, program.lower(images))
        if isinstance(found, ProgramCost) and found.peak > limit:
            found = TooLarge(found.peak)  # only a TPU's compiler refuses it itself
        if isinstance(found, TooLarge):
            too_large.append(each)
        memory = found.needed if isinstance(found, TooLarge) else found.peak
        if memory is not None:
            peaks[each] = memory
        return found

    asked = each = program.images // devices
    cost = compiled(each)
    needed = cost.needed if isinstance(cost, TooLarge) else None
    while isinstance(cost, TooLarge) and each > 1:
        each //= 2
        cost = compiled(each)
    found = Estimate(program, chip, each * devices, cost, needed)
    if isinstance(cost, TooLarge) or not program.growing:
        return found
    if len(peaks) < 2 and each == asked:
        compiled(2 * each)
    if len(peaks) < 2:
        return found
    used = sorted(peaks)
    most = most_images(sorted(peaks.items()), limit)
    if most is None:
        return found
    how = f"predicted from {used[0]} and {used[-1]}"
    if most not in peaks and compiler.last_seconds < _QUICK and most > each:
        verified = compiled(most)
        if isinstance(verified, ProgramCost):
            how = f"{how}, and compiled"
        elif verified.needed is not None:
            most = most_images([(each, cost.peak), (most, verified.needed)], limit) or most
            how = f"predicted from {each} and {max(peaks)}"
    most = min([most, *(size - 1 for size in too_large)])
    return dataclasses.replace(found, most=max(most, each), how=how)


def lines(name: str, found: Estimate) -> list[str]:
    """Returns lines that describe an estimate for a program of the stage `name`."""
    program, chip = found.program, found.chip
    each = found.images // program.devices
    title = f"{program.name}: {found.images:,} images" + (
        f" ({each:,} on each of {program.devices} chips)" if program.devices > 1 else " on one chip"
    )
    text = [title, *(f"  {remark}" for remark in program.remarks)]
    if program.asked != program.images:
        setting = f": --config.{name}.batch_size={program.images}" if program.growing else ""
        text.append(
            f"  {program.asked} images cannot be sharded over {program.devices} chips, so"
            f" {program.images} are run{setting}"
        )
    limit = f"{chip.usable_gib:g} GiB"
    if isinstance(found.cost, TooLarge):
        lacks = f"{gib(found.cost.needed)} of" if found.cost.needed else "more than"
        return [*text, f"  memory       does not fit: one image per chip needs {lacks} {limit}"]
    cost, roofline = found.cost, found.cost.roofline(chip)
    if found.images != program.images:
        lacks = f"{gib(found.needed)}, more than {limit}" if found.needed else f"more than {limit}"
        text.append(f"  {program.images:,} images do not fit (they need {lacks} per chip)")
    fit = f"; up to {found.most:,} images per chip fit ({found.how})" if found.most else ""
    share = cost.hbm_bytes / cost.bytes_accessed if cost.bytes_accessed else 1.0
    exchanged = ", ".join(
        f"{one.count} {one.kind} ({quantity(one.bytes, 'B')})" for one in cost.collectives
    )
    times = ", ".join(f"{kind} {1e3 * value:.3g}" for kind, value in vars(roofline).items())
    text += [
        f"  memory       {gib(cost.peak)} of {limit} per chip at the peak{fit}",
        f"  per image    {quantity(cost.flops / each, 'FLOP')},"
        f" {quantity(cost.bytes_accessed / each, 'B')} accessed, {100 * share:.0f} % of it in HBM",
        f"  collectives  {exchanged or 'none'}",
        f"  roofline     {1e3 * roofline.seconds:.3g} ms, {roofline.binds} binds ({times} ms)",
    ]
    expected = cost.expected_seconds(chip)
    if expected:
        used = roofline.arithmetic / expected
        text.append(
            f"  compiler     expects {1e3 * expected:.3g} ms without exchanges:"
            f" {100 * used:.0f} % of the arithmetic that the chip can do"
        )
    if not chip.mhz:  # a TPU runs a whole execution as one program
        text.append(f"  launches     {cost.launches:,} programs one after the other")
    if cost.unknown_loops:
        text.append(
            f"  loops        {cost.unknown_loops} of unknown length, counted as one round each"
        )
    if found.executions is not None and found.seconds is not None:
        times = f"{found.executions:,.0f} times, {duration(found.seconds)} at best"
        slower = f"; {duration(expected * found.executions)} as expected" if expected else ""
        text.append(f"  in all       {times}{slower}")
    else:
        text.append("  in all       unknown: the images are not counted")
    return text


def pixel_lines(name: str, found: Sequence[Estimate]) -> list[str]:
    """Returns a line about the largest batch of a stage that chooses batches by their pixels.

    Memory is taken to be affine in the pixels of a batch, as programs of different shapes show.
    """
    peaks = {
        one.program.pixels * one.images // one.program.devices: one.cost.peak
        for one in found
        if one.program.pixels and isinstance(one.cost, ProgramCost)
    }
    if len(peaks) < 2:
        return []
    most = most_images(sorted(peaks.items()), found[0].chip.usable_gib * 2**30)
    if most is None:
        return []
    used = f"{min(peaks):,} and {max(peaks):,}"
    return [
        f"batches of up to {most:,} padded pixels per chip fit (predicted from {used}):"
        f" --config.{name}.batch_pixels"
    ]


def total(found: Sequence[Estimate]) -> float | None:
    """Returns the seconds of all programs together, or None if one of them is unknown."""
    seconds = [one.seconds for one in found]
    known = [one for one in seconds if one is not None]
    return float(sum(known)) if len(known) == len(seconds) else None


def gib(count: int | float) -> str:
    """Returns a number of bytes as text in GiB."""
    return f"{count / 2**30:.3g} GiB"


def quantity(value: int | float, unit: str) -> str:
    """Returns a number with a decimal prefix, such as 26.4 GB."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def duration(seconds: int | float) -> str:
    """Returns a time as text in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"
