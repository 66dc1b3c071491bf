"""What recipes cost on TPU slices that need not be at hand: tables in Markdown.

    .venv/bin/python benchmarks/topologies.py --recipes seam_voc cam_voc --topologies v5e:2x4
    .venv/bin/python benchmarks/topologies.py --growth --recipes cam_voc_light --topologies v5e:2x4

Figures come from the compiler of the TPU, as in `wsss_jax.main --dry_run --topology`, with whose
code they are made. Compiling takes minutes per program. So each stage of a recipe is written to
``--file`` as soon as it is known, and a stage that is there already is not compiled again. Stages
that nothing is known of show as "–"; ``--only train`` leaves the others for later, and ``--show``
compiles nothing.

``here`` is a topology, too: the devices of this machine, as if they were v5e chips if they are no
chips that `wsss_jax.accelerators.chips` knows.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command, tables
from wsss_jax.accelerators.chips import V5E, Chip, chip_of
from wsss_jax.accelerators.compiled import ProgramCost, sent_bytes
from wsss_jax.accelerators.estimate import duration
from wsss_jax.accelerators.topology import chip_of_topology, without_devices
from wsss_jax.errors import UserError
from wsss_jax.pipeline import graph, process
from wsss_jax.pipeline.config import load_config, shipped_recipes
from wsss_jax.pipeline.dry_run import sizes_of
from wsss_jax.pipeline.topology_report import Target, estimates

PUBLISHED = [name for name in shipped_recipes() if name.endswith("_voc")]
SLICES = ("v4:2x2x1", "v5e:2x4", "v5e:4x8", "v6e:2x4")
COLUMNS = ("recipe", "topology", "images per chip", "peak GiB", "most images per chip")
COLUMNS += ("GFLOP per image", "GB per image", "of it in HBM", "MB all-reduced", "ms at best")
COLUMNS += ("binds", "ms expected", "training", "other stages", "whole recipe")
OTHER_CHIPS = {"NVLink of H100": 450.0}
LINKS = {**OTHER_CHIPS, "Ethernet, 100 Gb/s": 12.5}
"""GB/s that a device sends: over all links to its neighbors, or over the network card."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A recipe on a topology; 0 stands for what the recipe has."""

    recipe: str
    topology: str
    dtype: str
    each: int = 0
    crop: int = 0
    classes: int = 0


def target_of(topology: str) -> Target:
    """The devices of a topology, or those that are here."""
    if topology != "here":
        return Target.named(topology)
    import jax

    devices = jax.devices()
    return Target(topology, devices, chip_of(devices[0].device_kind) or V5E, {})


def compiled(case: Case, only: Sequence[str], largest: bool = True) -> Iterator[dict[str, Any]]:
    """Yields the figures of each stage of a recipe that runs programs on devices."""
    config: Any = load_config(case.recipe)
    target = target_of(case.topology)
    for name in config.stages:
        section = config[name]
        if section.type == "train":
            section.method.dtype = case.dtype
            section.batch_size = case.each * len(target.devices) or section.batch_size
            section.augment.crop = case.crop or section.augment.crop
    nodes = graph.stages(config)
    known, _ = sizes_of(config, nodes)
    sizes = {name: one._replace(classes=case.classes or one.classes) for name, one in known.items()}
    cache = process.cache_folder() / "topologies"
    for name, found in estimates(nodes, sizes, only, target, _log, cache, largest):
        programs = [
            {
                "name": one.program.name,
                "images": one.images,
                "devices": one.program.devices,
                "executions": one.executions,
                "most": one.most,
                "cost": one.cost.to_json() if isinstance(one.cost, ProgramCost) else None,
            }
            for one in found
        ]
        yield {**vars(case), "stage": name, "programs": programs}


def seconds(stage: dict[str, Any], chip: Chip) -> float:
    """The time of a stage at best; NaN if one of its programs does not fit or is not counted."""
    total = 0.0
    for one in stage["programs"]:
        if one["cost"] is None or one["executions"] is None:
            return float("nan")
        total += cost_of(one).roofline(chip).seconds * one["executions"]
    return total


def cost_of(one: dict[str, Any]) -> ProgramCost:
    return ProgramCost.from_json(one["cost"])


def chip_for(topology: str) -> Chip:
    return target_of(topology).chip if topology == "here" else chip_of_topology(topology)


def device_stages(recipe: str) -> list[str]:
    """The stages of a recipe that run programs on devices."""
    config: Any = load_config(recipe)
    kinds = ("train", "infer_cam", "predict", "random_walk")
    return [name for name in config.stages if config[name].type in kinds]


def first_training(recipe: str) -> str:
    """The training stage that a recipe begins with, which has its method's step."""
    config: Any = load_config(recipe)
    return next(name for name in config.stages if config[name].type == "train")


def step_cells(one: dict[str, Any], chip: Chip) -> list[str]:
    """What the training step costs, for the columns from the images per chip to what binds."""
    each = one["images"] // one["devices"]
    if one["cost"] is None:
        return [str(each), "does not fit", *["–"] * 8]
    cost = cost_of(one)
    roofline, expected = cost.roofline(chip), cost.expected_seconds(chip)
    return [
        str(each),
        f"{cost.peak / 2**30:.2f}",
        "–" if one["most"] is None else str(one["most"]),
        f"{cost.flops / each / 1e9:,.0f}"
        if cost.flops > each * 1e10
        else f"{cost.flops / each / 1e9:.2g}",
        f"{cost.bytes_accessed / each / 1e9:.3g}",
        f"{100 * cost.hbm_bytes / cost.bytes_accessed:.0f} %",
        f"{sum(c.bytes for c in cost.collectives) / 1e6:.3g}",
        f"{1e3 * roofline.seconds:.3g}",
        roofline.binds,
        f"{1e3 * expected:.3g}" if expected else "–",
    ]


def row(recipe: str, topology: str, stages: dict[str, dict[str, Any]]) -> str:
    """The row of a recipe on a topology, from the figures of its stages by name."""
    chip, first = chip_for(topology), first_training(recipe)
    step = step_cells(stages[first]["programs"][0], chip) if first in stages else ["–"] * 10
    times = {name: seconds(stage, chip) for name, stage in stages.items()}
    training = times.get(first, float("nan"))
    names = [name for name in device_stages(recipe) if name != first]
    others = sum(times.get(name, float("nan")) for name in names)
    totals = training, others, training + others
    said = ["–" if value != value else duration(value) for value in totals]
    return tables.row([f"`{recipe}`", topology, *step, *said])


def growth_rows(arguments: argparse.Namespace, kept: "Kept") -> Iterator[str]:
    """The tables of a training step over crop, images per chip, classes and devices."""
    axes = {"crop": arguments.crops, "each": arguments.images, "classes": arguments.classes}
    said = {"crop": "crop", "each": "images of each chip", "classes": "classes"}
    for recipe in arguments.recipes:
        for topology in arguments.topologies:
            base = Case(recipe, topology, arguments.dtype, each=1, crop=arguments.crop)
            chip = chip_for(topology)
            for axis, values in axes.items():
                yield "\n" + tables.head((said[axis], "recipe", "topology", *COLUMNS[2:12]))
                for value in values:
                    stages = kept.stages(dataclasses.replace(base, **{axis: value}), ("train",))
                    if "train" in stages:
                        cells = step_cells(stages["train"]["programs"][0], chip)
                        yield tables.row([f"{value:,}", f"`{recipe}`", topology, *cells])
            stages = kept.stages(base, ("train",))
            if "train" in stages and stages["train"]["programs"][0]["cost"] is not None:
                yield from device_rows(recipe, cost_of(stages["train"]["programs"][0]), chip)


def device_rows(recipe: str, cost: ProgramCost, chip: Chip) -> Iterator[str]:
    """What each device sends in a step, by the number of devices, with one image on each.

    The last columns have the share of the step's time that is left to computing on `chip` if
    nothing of the exchange overlaps with it. They are unknown where the compiler states no time.
    """
    expected = cost.expected_seconds(chip)
    links = {f"ICI of {chip.name}": float(chip.interconnect_gbps), **LINKS}
    columns = [f"ms over {link}" for link in links]
    columns += [f"efficiency over {link}" for link in links if link not in OTHER_CHIPS]
    yield "\n" + tables.head(("devices", "recipe", "MB sent by each in a step", *columns))
    for power in range(9):
        sent = sent_bytes(cost.collectives, 2**power)
        times = {link: sent / rate / 1e9 for link, rate in links.items()}
        cells = [f"{1e3 * seconds:.3g}" for seconds in times.values()]
        for link, seconds in times.items():
            if link not in OTHER_CHIPS:
                cells.append(f"{100 * expected / (expected + seconds):.0f} %" if expected else "–")
        yield tables.row([2**power, f"`{recipe}`", f"{sent / 1e6:.3g}", *cells])


class Kept:
    """The figures of the stages that are in a file, to which new ones are appended."""

    def __init__(self, path: Path, only: Sequence[str], show: bool, largest: bool):
        self._path, self._only, self._show, self._largest = path, only, show, largest
        lines = path.read_text().splitlines() if path.is_file() else []
        self._known = [json.loads(line) for line in lines]

    def stages(self, case: Case, only: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """The figures of a case by stage; what is missing is compiled unless only shown."""
        found = {
            one["stage"]: one
            for one in self._known
            if all(one[name] == value for name, value in vars(case).items())
        }
        wanted = only or self._only or device_stages(case.recipe)
        missing = [name for name in wanted if name not in found]
        for name in [] if self._show else missing:
            for stage in compiled(case, (name,), self._largest):
                found[name] = stage
                self._known.append(stage)
                with self._path.open("a") as file:
                    file.write(json.dumps(stage) + "\n")
        return found


def _log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main() -> None:
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("--recipes", nargs="+", default=PUBLISHED)
    add("--topologies", nargs="+", default=list(SLICES))
    add("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    add("--batch", type=int, default=0, help="images per chip (0: the recipe's batch)")
    add("--crop", type=int, default=0, help="side of the training images (0: the recipe's)")
    add("--only", nargs="+", default=[], help="stages to compile (all that run on devices)")
    add("--file", type=Path, default=Path("topologies.jsonl"), help="where the figures are kept")
    numbers: dict[str, Any] = dict(type=int, nargs="+")
    add("--crops", default=[224, 320, 448, 640], help="with --growth", **numbers)
    add("--images", default=[1, 2, 4, 8, 16], help="of each chip, with --growth", **numbers)
    add("--classes", default=[20, 80, 1000], help="with --growth", **numbers)
    add(
        "--growth", action="store_true", help="the training step over crop, batch, classes, devices"
    )
    add("--once", action="store_true", help="compile each step once; the largest batch is unknown")
    add("--show", action="store_true", help="print what the file has, compile nothing")
    arguments = parser.parse_args()
    if arguments.show and not arguments.file.is_file():
        parser.error(f"expected figures in {arguments.file}, found no such file: change --file")
    kept = Kept(arguments.file, arguments.only, arguments.show, not arguments.once)
    if "here" not in arguments.topologies:
        without_devices()
    try:
        for topology in () if arguments.show else arguments.topologies:
            target_of(topology)  # before anything is printed
        if arguments.growth:
            for line in growth_rows(arguments, kept):
                print(line, flush=True)
            return
        print(tables.head(COLUMNS))
        for recipe in arguments.recipes:
            for topology in arguments.topologies:
                case = Case(recipe, topology, arguments.dtype, arguments.batch, arguments.crop)
                print(row(recipe, topology, kept.stages(case)), flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
