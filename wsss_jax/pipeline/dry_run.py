"""Describes what a command would do, with details from its stages and the resolved recipe."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from ml_collections import ConfigDict

from wsss_jax.data.prepared_source import PreparedSource
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.errors import UserError
from wsss_jax.files import flatten
from wsss_jax.pipeline import durations, graph, process, record, run, topology_report
from wsss_jax.pipeline.config import readers
from wsss_jax.pipeline.differences import differences
from wsss_jax.progress import about
from wsss_jax.stages.base import SplitSize, Stage


class Plan(NamedTuple):
    """What a command would do.

    Attributes:
      text: the description.
      refused: the reasons for which the run would be refused, the one that it would tell first.
    """

    text: str
    refused: tuple[str, ...]


def describe(
    config: ConfigDict, workdir: Path, only: tuple[str, ...], force: bool, details: bool = False
) -> Plan:
    """Describes a run, without writing anything or allocating arrays.

    Args:
      config: the recipe with all values resolved.
      workdir: the folder for the results.
      only: the names of the stages to run; all if empty.
      force: as in `run.run`.
      details: whether to describe all settings and what trainings cost, which takes seconds. If
        not, each stage has a line.

    Raises:
      UserError: the config is wrong, or its batch cannot be sharded over the devices.
    """
    nodes = run.checked(config, only)
    sizes, digests, remarks = _data(config, nodes)
    plain = json.loads(config.to_json_best_effort())
    beforehand = record.decide(nodes, plain, {}, workdir, only, force)
    decisions = record.decide(nodes, plain, digests, workdir, only, force)
    lines = [f"workdir {workdir}" + ("" if workdir.exists() else " (new)")]
    if details:
        lines += ["", "different from the defaults", *_different(config)]
    lines += ["", "stages", *_stages(decisions, sizes, only)]
    lines += ["", "data"]
    for split in sorted(digests):
        missing = "" if split in sizes else "data not found: "
        lines.append(f"  {split}: {missing}{remarks[split]}")
    for node in nodes if details else ():
        if own := node.stage.details(sizes):
            lines += ["", node.name, *(f"  {line}" for line in own)]
    if details:
        lines += ["", "values (replace one with --config.KEY=VALUE)"]
        lines += [f"  {key} = {value!r}" for key, value in flatten(config.to_dict())]
    else:
        lines += ["", "--details shows all settings, and what trainings cost in memory and FLOPs"]
    wanted = {s for n in nodes if not only or n.name in only for s in n.stage.splits()}
    refused = [*run.refused(beforehand), *run.missing_files(beforehand)]
    refused += [remarks[split] for split in sorted(wanted) if split not in sizes]
    refused += run.refused(decisions)
    refused += _unfit(config, [d for d in decisions if d.action in run.BEGINS], digests, sizes)
    refused = list(dict.fromkeys(refused))
    if refused:  # It stands last, where it is seen.
        lines += ["", "this run would be refused", *(f"  {line}" for line in refused)]
    return Plan("\n".join(lines), tuple(refused))


def _stages(
    decisions: Sequence[record.Decision], sizes: Mapping[str, SplitSize], only: tuple[str, ...]
) -> Iterator[str]:
    """Yields a line for each stage, and one for the time of all.

    Raises:
      UserError: a stage cannot run on this machine or with this data.
    """
    begins = [one.node for one in decisions if one.action in run.BEGINS]
    counted = [node for node in begins if sizes.keys() >= {*node.stage.splits()}]
    images = {n.name: sum(sizes[split].images for split in n.stage.splits()) for n in counted}
    seconds = durations.expected(counted, images)
    width = max(len(one.node.name) for one in decisions)
    for decision in decisions:
        node = decision.node
        try:
            own = node.stage.describe(sizes, asked=not only or node.name in only)
        except UserError as error:
            raise UserError(f"stage {node.name}: {error}") from error
        reads = [*dict.fromkeys(node.needs.values())]
        reads += [f"images of {split}" for split in node.stage.splits()]
        read = f" <- {', '.join(reads)}" if reads else ""
        known = [about(seconds[node.name])] if node.name in seconds else []
        facts = [decision.reason, *(" ".join(line.split()) for line in own), *known]
        yield (
            f"  {node.name:<{width}}  {decision.action:<6}  {node.type}{read}: {'; '.join(facts)}"
        )
    if begins and len(seconds) == len(begins):
        yield f"  in all {about(sum(seconds.values()))}, as on this machine before"


def _unfit(
    config: ConfigDict,
    decisions: Sequence[record.Decision],
    digests: Mapping[str, str | None],
    sizes: Mapping[str, SplitSize],
) -> Iterator[str]:
    """Yields what stages would refuse of the data and of files, as far as these are there."""
    gone = {d.node.name for d in decisions if None in d.parts["files"].values()}
    nodes = [d.node for d in decisions if d.node.name not in gone]
    ready = [n for n in nodes if None not in [digests[s] for s in n.stage.splits()]]
    yield from run.data_refusals(config, tuple(ready))
    for node in (node for node in nodes if node not in ready):
        classes = [sizes[split].classes for split in node.stage.splits() if split in sizes]
        try:
            node.stage.check_files(max(classes, default=None))
        except UserError as error:
            yield f"stage {node.name}: {error}"


def _different(config: ConfigDict) -> list[str]:
    """Returns lines for all settings that differ from their defaults or have none."""
    sections: Any = config
    return [
        f"  {name}.{path} = {value!r}" + (f" (default {default})" if default else "")
        for name, reader in readers(config).items()
        if isinstance(sections.get(name), ConfigDict)
        for path, value, default in differences(sections[name], reader)
        # The plan below shows the kinds and needs of stages.
        if not (reader is Stage and path.split(".")[0] in (Stage.key, "needs"))
    ]


def on_topology(config: ConfigDict, only: tuple[str, ...], topology: str) -> Iterator[str]:
    """Yields lines about what the stages cost on a topology; see `topology_report.report`.

    Splits that are not at hand have the published numbers of images.

    Raises:
      UserError: there is no such topology, or its compiler is not installed.
    """
    target = topology_report.Target.named(topology)
    nodes = run.checked(config, only)
    sizes, assumed = sizes_of(config, nodes)
    for split in assumed:
        yield f"{split}: {sizes[split].images:,} images (published; the data was not found)"
    cache = process.cache_folder() / "topologies"
    yield from topology_report.report(nodes, sizes, only, target, _log, cache)


def sizes_of(
    config: ConfigDict, nodes: tuple[graph.Node, ...]
) -> tuple[dict[str, SplitSize], tuple[str, ...]]:
    """Returns the sizes of the splits that `nodes` read, and which of them are the published ones.

    These are the splits that are not at hand; those whose size nobody published are missing.
    """
    sizes, _, remarks = _data(config, nodes)
    published = DataSettings.from_config(cast(Any, config.data), "data").published
    assumed = tuple(split for split in remarks if split not in sizes and split in published)
    return sizes | {split: SplitSize(*published[split]) for split in assumed}, assumed


def _log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _data(
    config: ConfigDict, nodes: tuple[graph.Node, ...]
) -> tuple[dict[str, SplitSize], dict[str, str | None], dict[str, str]]:
    """Returns the sizes of the splits that are available, their digests, and remarks on all."""
    sizes: dict[str, SplitSize] = {}
    digests: dict[str, str | None] = {}
    remarks: dict[str, str] = {}
    data = DataSettings.from_config(cast(Any, config.data), "data")
    for split in sorted({s for node in nodes for s in node.stage.splits()}):
        digests[split] = None
        try:
            builder = data.builder(split)
        except UserError as error:
            remarks[split] = str(error)
            continue
        sizes[split] = SplitSize(len(builder.ids), len(builder.classes))
        remarks[split] = f"{len(builder.ids):,} images"
        if Path(builder.data_dir).exists():
            prepared = PreparedSource(Path(builder.data_dir))
            digests[split] = prepared.digest
            sizes[split] = sizes[split]._replace(image_sizes=prepared.sizes)
        else:
            remarks[split] += ", to be prepared on the first run"
    return sizes, digests, remarks
