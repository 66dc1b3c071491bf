"""Runs the stages of a config in a working directory: skips what is finished, resumes the rest.

Every stage has the folder ``workdir/<stage>/``. ``_START.json`` records what its results depend
on, and ``_DONE.json`` that it is finished (see `wsss_jax.pipeline.record`). ``config.json`` has its
settings and ``metrics.json`` its figures. ``workdir/results.json`` collects the figures of all
stages.
"""

import datetime
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from wsss_jax import console, digests
from wsss_jax.data.prepared_source import PreparedSource
from wsss_jax.errors import Interrupted, UserError, nearest
from wsss_jax.files import DONE, START, remove_unfinished, write_json
from wsss_jax.host.provenance import git_revision, versions
from wsss_jax.pipeline import durations, graph, stalls
from wsss_jax.pipeline.process import WAIT_MINUTES, Barrier, check_alone
from wsss_jax.pipeline.record import Decision, decide, is_done, read_done, read_start, remove
from wsss_jax.progress import about
from wsss_jax.report.best_masks import best_masks, next_command
from wsss_jax.report.collect import collect
from wsss_jax.stages.base import Context

RESULTS = "results.json"

_RECORDS = ("config.json", "metrics.json")  # what every stage has for others beside its outputs

BEGINS = ("run", "redo", "resume")  # the actions that run a stage


def run(
    config: ConfigDict,
    workdir: Path,
    only: tuple[str, ...] = (),
    force: bool = False,
    wait_minutes: float = WAIT_MINUTES,
) -> dict[str, dict[str, Any]]:
    """Runs the stages of `config` and returns the metrics of every finished stage.

    Args:
      config: the recipe with all values resolved.
      workdir: the folder for the results, which is created if it does not exist.
      only: the names of the stages to run; all if empty.
      force: whether to delete and run again the stages whose settings differ, or with `only` the
        stages that it names, and everything that was made from them.
      wait_minutes: how long processes wait for each other, before and after each stage.

    Raises:
      UserError: the config is wrong, or the folder has results of another config.
      Missing: another process of this run did not come in time.
      Interrupted: a stage stopped on request after saving.
    """
    barrier = Barrier(wait_minutes)
    nodes = checked(config, only)
    plain = json.loads(config.to_json_best_effort())
    # What can be refused without the data is refused before the data is prepared.
    beforehand = decide(nodes, plain, {}, workdir, only, force)
    _refuse(refused(beforehand))
    _refuse(missing_files(beforehand))
    sources = _digests(config, workdir, nodes, only, barrier)
    barrier("choice of the stages")
    decisions = decide(nodes, plain, sources, workdir, only, force)
    barrier("start of the stages")
    _refuse(refused(decisions))
    for decision in decisions:
        if decision.action in BEGINS:
            _check_data(decision.node, _context(config, workdir, decision.node.name, nodes))
    compared: tuple[graph.Node, ...] = ()
    if any(decision.action in ("redo", "remove") for decision in decisions):
        # Without its inputs, what is removed could not be made again.
        compared = _finished_inputs(decisions)
        _compare(workdir, compared)
        barrier("comparison of the inputs")
    if jax.process_index() == 0:
        # Stages are removed before the stages that they were made from.
        for decision in reversed(decisions):
            if decision.action in ("redo", "remove"):
                remove(workdir, decision.node.name)
    _event("run_started", workdir=str(workdir), stages=[node.name for node in nodes])
    images = {
        one.node.name: _images(config, workdir, one.node, nodes)
        for one in decisions
        if one.action in BEGINS
    }
    for number, decision in enumerate(decisions, 1):
        node = decision.node
        head = f"[{number}/{len(decisions)}] {node.name} ({node.type})"
        facts = dict(stage=node.name, type=node.type, number=number, stages=len(decisions))
        if decision.action in BEGINS:
            begins = "resumes" if decision.action == "resume" else "starts"
            left = _time_left(decisions[number - 1 :], images)
            _say(f"{head}: {begins}{left}")
            _event("stage_started", **facts, resumes=decision.action == "resume")
            begin = time.monotonic()
            context = _context(config, workdir, node.name, nodes)
            needed = [one for one in nodes if one.name in node.needs.values()]
            # The first stage follows at once; before a later one, files may change.
            needed = [one for one in needed if one not in compared]
            compared = ()
            metrics = _run_stage(context, decision, needed, barrier)
            seconds = time.monotonic() - begin
            if jax.process_index() == 0 and decision.action != "resume":
                durations.remember(node, images[node.name], seconds)
            _event("stage_finished", **facts, seconds=seconds, metrics=metrics)
        else:
            deleted = "deleted, because it was " if decision.action == "remove" else ""
            _say(f"{head}: {deleted}{decision.reason}")
            _event("stage_skipped", **facts, reason=decision.reason)
    found = _gather(config, workdir, nodes)
    _event("run_finished", workdir=str(workdir))
    return found


def _images(
    config: ConfigDict, workdir: Path, node: graph.Node, nodes: tuple[graph.Node, ...]
) -> int:
    """Returns the number of images of the splits that a stage reads."""
    context = _context(config, workdir, node.name, nodes)
    return sum(len(context.source(split)) for split in node.stage.splits())


def _time_left(decisions: tuple[Decision, ...], images: dict[str, int]) -> str:
    """Returns how long the first of the stages and all of them take, if this is known."""
    waiting = [one.node for one in decisions if one.action in BEGINS]
    known = durations.expected(waiting, images)
    if waiting[0].name not in known:
        return ""
    text = f", {about(known[waiting[0].name])}"
    if len(waiting) > 1 and len(known) == len(waiting):
        text += f"; {about(sum(known.values()))} until the run has ended"
    return text


def _refuse(reasons: Iterable[str]) -> None:
    for reason in reasons:
        raise UserError(reason)


def refused(decisions: Iterable[Decision]) -> Iterator[str]:
    """Yields for which reasons stages are refused."""
    for decision in decisions:
        if decision.action == "refuse":
            yield f"stage {decision.node.name}: {decision.reason}"


def missing_files(decisions: Iterable[Decision]) -> Iterator[str]:
    """Yields what is wrong with files that stages read and that are not there."""
    for decision in decisions:
        name, stage = decision.node.name, decision.node.stage
        for setting in stage.files() if decision.action in BEGINS else ():
            if decision.parts["files"][setting] is not None:
                continue
            try:
                path = stage.locate(setting)
            except UserError as error:
                yield f"stage {name}: {error}; set --config.{name}.{setting}"
                continue
            yield (
                f"stage {name}: expected a file that can be read at {path} ({setting}), found"
                f" another one: set --config.{name}.{setting}"
            )


def data_refusals(config: ConfigDict, nodes: tuple[graph.Node, ...]) -> list[str]:
    """Returns for which reasons stages would refuse the data, which have to be prepared."""
    found: list[str] = []
    for node in nodes:
        try:
            _check_data(node, _context(config, Path(), node.name, nodes))
        except UserError as error:
            found.append(str(error))
    return found


def _check_data(node: graph.Node, context: Context) -> None:
    try:
        node.stage.check_data(context)
        classes = {len(context.source(split).classes) for split in node.stage.splits()}
        node.stage.check_files(max(classes, default=None))
    except UserError as error:
        raise UserError(f"stage {node.name}: {error}") from error


def checked(config: ConfigDict, only: tuple[str, ...]) -> tuple[graph.Node, ...]:
    """Returns the stages of `config` in order, after all checks that do not need the data.

    Raises:
      UserError: the config is wrong, or a name in `only` is not a stage.
    """
    nodes = graph.stages(config)
    names = [node.name for node in nodes]
    for name in only:
        if name not in names:
            raise UserError(
                f"--only names {name}, which is not a stage of this config ({', '.join(names)})"
                f"{nearest(name, names)}"
            )
    graph.check(nodes)
    return nodes


def _digests(
    config: ConfigDict,
    workdir: Path,
    nodes: tuple[graph.Node, ...],
    only: tuple[str, ...],
    barrier: Barrier,
) -> dict[str, str | None]:
    """Returns the digests of the splits that are read, and prepares the data set on first use."""
    splits = sorted({s for node in nodes for s in node.stage.splits()})
    wanted = {s for node in nodes if not only or node.name in only for s in node.stage.splits()}
    context = _context(config, workdir, nodes[0].name, nodes)
    for turn in ("first process", "others"):
        # The first process prepares the data set before the others read it.
        if (jax.process_index() == 0) == (turn == "first process"):
            for split in sorted(wanted):
                context.source(split)
        barrier(f"reading of the data by the {turn}")
    return {s: context.source(s).digest if s in wanted else None for s in splits}


def _context(
    config: ConfigDict, workdir: Path, name: str, nodes: tuple[graph.Node, ...]
) -> Context:
    return Context(
        stages=nodes,
        config=config,
        workdir=workdir,
        stage=name,
        stage_dir=workdir / name,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _finished_inputs(decisions: tuple[Decision, ...]) -> tuple[graph.Node, ...]:
    """Returns the stages that others are about to read and that do not run themselves."""
    begins = [one.node for one in decisions if one.action in BEGINS]
    read = {n for one in begins if not one.stage.redone_freely for n in one.needs.values()}
    names = read - {one.name for one in begins}
    return tuple(one.node for one in decisions if one.node.name in names)


def _compare(workdir: Path, nodes: Iterable[graph.Node]) -> None:
    """Refuses finished stages whose results are not as they wrote them.

    Each process compares a share. Logs and files of others in the folders make no difference.

    Raises:
      UserError: a result, the settings or the figures of a stage are missing or have changed.
    """
    for node in nodes:
        read = {*node.stage.outputs, *_RECORDS}
        digests.check(
            workdir / node.name,
            lambda name, read=read: name in read or name.partition("/")[0] + "/" in read,
            share=(jax.process_index(), jax.process_count()),
        )


def _run_stage(
    context: Context, decision: Decision, needed: Iterable[graph.Node], barrier: Barrier
) -> dict[str, Any]:
    """Runs a stage after a comparison of the stages `needed`, and returns its metrics."""
    node, folder = decision.node, context.stage_dir
    before = 0.0
    record = {
        "stage": node.name,
        "digest": decision.digest,
        "versions": versions(),
        "revision": git_revision(),
    }
    if jax.process_index() == 0:
        check_alone(context.workdir)
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        if decision.action == "resume":
            before = float(read_start(folder).get("seconds", 0.0))
        write_json(folder / START, {**record, "parts": decision.parts, "seconds": before})
        write_json(folder / "config.json", node.section)
    barrier(f"start of {node.name}")
    inputs = {name: context.workdir / upstream for name, upstream in node.needs.items()}
    if not node.stage.redone_freely:  # Such as a report, which says itself what is damaged.
        _compare(context.workdir, needed)
    begin = time.monotonic()
    try:
        with stalls.watched(node.name, barrier.minutes):
            metrics = node.stage.run(context, inputs)
    except (Interrupted, KeyboardInterrupt):
        if jax.process_index() == 0:
            seconds = before + time.monotonic() - begin
            write_json(folder / START, {**read_start(folder), "seconds": seconds})
        raise
    barrier(f"end of {node.name}")
    if jax.process_index() == 0:
        check_alone(context.workdir)
        if left_out := _left_out(context, node):
            metrics["warnings"] = [*metrics.get("warnings", ()), *left_out]
        write_json(folder / "metrics.json", metrics)
        done = {
            **record,
            "type": node.type,
            "metrics": metrics,
            "seconds": round(before + time.monotonic() - begin, 3),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "files": digests.seal(folder),
        }
        write_json(folder / DONE, done)
    barrier(f"record of {node.name}")
    return metrics


def _left_out(context: Context, node: graph.Node) -> list[str]:
    """Returns sentences on damaged images, of splits that no stage before has read."""
    before: set[str] = set()
    for stage in context.stages:
        if stage.name == node.name:
            break
        before.update(stage.stage.splits() if isinstance(stage, graph.Node) else ())
    sources = {split: context.source(split) for split in node.stage.splits() if split not in before}
    return [
        f"{source.told_left_out()} of {split}"
        for split, source in sources.items()
        if isinstance(source, PreparedSource) and source.left_out
    ]


def _gather(
    config: ConfigDict, workdir: Path, nodes: tuple[graph.Node, ...]
) -> dict[str, dict[str, Any]]:
    finished = {
        node.name: read_done(workdir / node.name) for node in nodes if is_done(workdir / node.name)
    }
    if jax.process_index() == 0:
        results = {
            "config": json.loads(config.to_json_best_effort()),
            "stages": finished,
            "versions": versions(),
            "revision": git_revision(),
        }
        write_json(workdir / RESULTS, results)
        _say(table({n: (d["seconds"], d["metrics"]) for n, d in finished.items()}))
        for name, done in finished.items():
            for warning in done["metrics"].get("warnings", ()):
                _say(f"WARNING of {name}: {warning}")
        outcome = collect(nodes, config, workdir, "")
        for masks in best_masks(outcome):
            _say(f"best masks of {masks.split} ({masks.note}): {masks.stage.folder / 'masks'}")
        if command := next_command(outcome, workdir):
            _say(f"masks of other photographs: {command}")
    return {name: done["metrics"] for name, done in finished.items()}


# The figures that the table shows, and their formats.
_SHOWN = {
    "miou": "{:.1%} mIoU",
    "precision": "{:.1%} precision",
    "recall": "{:.1%} recall",
    "loss": "loss {:.4f}",
    "images_per_second": "{:.1f} images/s",
    "threshold": "threshold {:.2f}",
    "images": "{:,} images",
}


def table(results: dict[str, tuple[float, dict[str, Any]]]) -> str:
    """Returns a text table with the name, time and key figures of each stage."""
    rows = [("stage", "time", "result")]
    for name, (seconds, metrics) in results.items():
        shown = [
            form.format(metrics[key])
            for key, form in _SHOWN.items()
            if isinstance(metrics.get(key), int | float)
        ]
        rows.append((name, clock(seconds), ", ".join(shown)))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f"{r[0]:<{widths[0]}}  {r[1]:>{widths[1]}}  {r[2]}".rstrip() for r in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def clock(seconds: float) -> str:
    """Formats a duration as ``4.2 s``, ``3:05 min`` or ``1:02:03 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def _say(line: str) -> None:
    if jax.process_index() == 0:
        console.say(line)


def _event(kind: str, **fields: Any) -> None:
    if jax.process_index() == 0:
        console.event(kind, **fields)
