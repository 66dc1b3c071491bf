"""What the stages of a recipe cost on a topology that need not be at hand."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss_jax.accelerators.chips import Chip
from wsss_jax.accelerators.estimate import Estimate, duration, estimate, lines, pixel_lines, total
from wsss_jax.accelerators.programs import Compiler
from wsss_jax.accelerators.topology import chip_of_topology, compiler_options, topology_devices
from wsss_jax.ops.sharding import data_mesh
from wsss_jax.pipeline.graph import Node
from wsss_jax.stages.base import Need, SplitSize


@dataclasses.dataclass(frozen=True)
class Target:
    """The devices to compile for.

    Attributes:
      name: the name of the topology.
      devices: its devices, at hand or not.
      chip: the kind of chip.
      options: what the compiler has to be told for them.
    """

    name: str
    devices: Sequence[Any]
    chip: Chip
    options: Mapping[str, Any]

    @classmethod
    def named(cls, name: str) -> "Target":
        """Returns the devices of the topology `name`, which need not be at hand.

        Raises:
          UserError: see `topology_devices`.
        """
        chip = chip_of_topology(name)
        return cls(name, topology_devices(name), chip, compiler_options(name))

    def line(self) -> str:
        """Returns a line about the chips."""
        chip, count = self.chip, len(self.devices)
        chips = "1 chip" if count == 1 else f"{count} chips, each"
        return (
            f"{self.name}: {chips} with {chip.bf16_tflops} TFLOP/s in bfloat16,"
            f" {chip.usable_gib:g} GiB at {chip.hbm_gbps} GB/s, and"
            f" {chip.interconnect_gbps} GB/s to other chips"
        )


def estimates(
    nodes: Sequence[Node],
    sizes: Mapping[str, SplitSize],
    only: Sequence[str],
    target: Target,
    log: Callable[[str], None],
    cache: Path | None,
    largest: bool = True,
) -> Iterator[tuple[str, list[Estimate]]]:
    """Yields the name of each stage that runs programs on devices, with their estimates.

    A stage whose programs are unknown has none.

    Args:
      nodes: all stages of the recipe.
      sizes: the sizes of the splits, by name.
      only: the names of the stages to estimate, or nothing for all.
      target: the devices to compile for.
      log: a function that prints progress.
      cache: the folder of costs that are known already, or None.
      largest: whether to find out how large a batch may be, for which a training step is compiled
        twice.
    """
    mesh = data_mesh(list(target.devices))
    key = f"{target.name} {target.devices[0].device_kind}"
    compiler = Compiler(key, cache, log, target.options)
    named = {node.name: Need(node.name, node.stage) for node in nodes}
    for node in nodes:
        if only and node.name not in only:
            continue
        needs = {name: named[other] for name, other in node.needs.items()}
        programs = node.stage.programs(sizes, needs, mesh)
        if programs is not None:
            if not largest:
                programs = [dataclasses.replace(one, growing=False) for one in programs]
            yield node.name, [estimate(node.name, one, target.chip, compiler) for one in programs]


def report(
    nodes: Sequence[Node],
    sizes: Mapping[str, SplitSize],
    only: Sequence[str],
    target: Target,
    log: Callable[[str], None],
    cache: Path | None,
) -> Iterator[str]:
    """Yields the lines of the report as soon as they are known; see `estimates`."""
    yield target.line()
    sums: dict[str, float | None] = {}
    for name, found in estimates(nodes, sizes, only, target, log, cache):
        yield ""
        yield name
        for one in found:
            yield from (f"  {line}" for line in lines(name, one))
        yield from (f"  {line}" for line in pixel_lines(name, found))
        if not found:
            yield "  unknown: its network is trained by a stage that does not state it"
        sums[name] = total(found) if found else None
    known = [seconds for seconds in sums.values() if seconds is not None]
    left_out = "" if len(known) == len(sums) else " and without what is unknown"
    yield ""
    yield (
        f"at best {duration(sum(known))} on {target.name}, without the work of hosts (reading,"
        f" dense CRF, scores){left_out}"
    )
    for name, seconds in sums.items():
        yield f"  {name}: {'unknown' if seconds is None else duration(seconds)}"
