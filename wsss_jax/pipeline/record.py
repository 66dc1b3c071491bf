"""Decides what to do with each stage, from the records in the stages' folders.

``_START.json`` is written when a stage starts, and contains everything on which the results depend.
Its comparison with the present config finds the values that differ. ``_DONE.json`` says that the
stage is finished.
"""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from wsss_jax.data.sets.base import DataSettings
from wsss_jax.errors import UserError
from wsss_jax.files import DONE, START, files_below, flatten
from wsss_jax.pipeline.graph import Node, downstream
from wsss_jax.records import check_fields, read_record
from wsss_jax.settings import to_config
from wsss_jax.stages.base import Stage
from wsss_jax.weights import catalogue, checkpoint

FORMAT = 2
"""The format of the records. Records of version 0.1, which had other settings, have no format."""

_PARTS = {
    **dict.fromkeys(("section", "files", "data", "images", "needs"), dict),
    "seed": int,
}
_DONE_FIELDS = {"type": str, "digest": str, "seconds": float, "finished": str, "metrics": dict}


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do with a stage.

    Attributes:
      node: the stage.
      parts: everything on which the results depend.
      digest: the hash of `parts`, or None if the data are not available and were never recorded.
      action: ``run``, ``resume``, ``skip`` (finished), ``redo`` (delete and run), ``leave`` (not
        asked for), ``remove`` (not asked for, but made from a stage that is run again) or
        ``refuse``.
      reason: the reason, which the user sees.
    """

    node: Node
    parts: dict[str, Any]
    digest: str | None
    action: str
    reason: str


def decide(
    nodes: tuple[Node, ...],
    settings: dict[str, Any],
    sources: dict[str, str | None],
    workdir: Path,
    only: tuple[str, ...] = (),
    force: bool = False,
) -> tuple[Decision, ...]:
    """Decides what to do with each stage, in order; reads `workdir` and changes nothing.

    Args:
      nodes: the stages in order.
      settings: the config as plain values, of which ``seed`` and ``data`` are used.
      sources: the digest of the data of each split, or None if the data is not available, which
        counts as unchanged.
      workdir: the working directory.
      only: the names of the stages to run; all if empty.
      force: whether stages with other settings are deleted and run again.
    """
    decisions: dict[str, Decision] = {}
    for node in nodes:
        parts = _parts(node, settings, sources, decisions, recorded(workdir / node.name))
        digest = None
        if None not in (*parts["images"].values(), *parts["needs"].values()):
            digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        action, reason = _action(node, parts, workdir, decisions, only, force)
        decisions[node.name] = Decision(node, parts, digest, action, reason)
    # A stage that is run again with the same record has the same results, so what was made from
    # them stays valid.
    changed = {
        name
        for name, decision in decisions.items()
        if decision.action == "redo" and recorded(workdir / name) != decision.parts
    }
    for name in downstream(nodes, changed):
        decision = decisions[name]
        if decision.action in ("skip", "resume", "leave") and recorded(workdir / name):
            action = "remove" if decision.action == "leave" else "redo"
            reason = "made from a stage that is run again"
            decisions[name] = dataclasses.replace(decision, action=action, reason=reason)
    return tuple(decisions.values())


def recorded(folder: Path) -> dict[str, Any] | None:
    """Returns what the results in a stage's folder depend on, or None if no stage started there.

    Raises:
      UserError: the record cannot be read.
    """
    path = folder / START
    if not path.exists():
        return None
    parts = read_start(folder)["parts"]
    if parts.get("format") == FORMAT:
        check_fields(path, parts, _PARTS, _start_remedy(folder))
    return parts


def read_start(folder: Path) -> dict[str, Any]:
    """Returns the record that a stage wrote into its folder when it started.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    fields, optional = {"parts": dict}, {"seconds": float, "parts.format": int}
    return read_record(folder / START, fields, _start_remedy(folder), optional)


def _start_remedy(folder: Path) -> str:
    return f"restore the file, or delete {folder} and run the same command with --force"


def is_done(folder: Path) -> bool:
    """Returns whether the stage of a folder is finished.

    Raises:
      UserError: the record that says so cannot be read.
    """
    if not (folder / DONE).exists():
        return False
    read_done(folder)
    return True


def read_done(folder: Path) -> dict[str, Any]:
    """Returns the part of the record of a finished stage that ``results.json`` contains.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    remedy = "restore the file, or delete it to finish the stage again"
    done = read_record(folder / DONE, _DONE_FIELDS, remedy)
    return {name: done[name] for name in _DONE_FIELDS}


def _parts(
    node: Node,
    settings: dict[str, Any],
    sources: dict[str, str | None],
    upstream: dict[str, Decision],
    old: dict[str, Any] | None,
) -> dict[str, Any]:
    images = {s: sources.get(s) for s in node.stage.splits()}
    needs = {name: upstream[node.needs[name]].digest for name in sorted(node.needs)}
    files = {name: _file_digest(node.stage, name) for name in node.stage.files()}
    if old is not None and old.get("format") == FORMAT:
        images = {s: old["images"].get(s) if d is None else d for s, d in images.items()}
        files = {k: old["files"].get(k) if d is None else d for k, d in files.items()}
        needs = {k: old["needs"].get(k) if d is None else d for k, d in needs.items()}
    ignored = {*node.stage.no_effect, *files}
    parts = {
        "format": FORMAT,
        "section": {k: v for k, v in node.section.items() if k not in ignored},
        "files": files,
        "seed": settings.get("seed", 0),
        "data": _data(settings["data"]),
        "images": images,
        "needs": needs,
    }
    return json.loads(json.dumps(parts))  # turns tuples into lists, as in a record that is read


def _data(section: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of the data without its location; digests stand for the content."""
    data = DataSettings.from_config(section, "data")
    return {k: v for k, v in to_config(data).to_dict().items() if k not in data.location}


def _file_digest(stage: Stage, setting: str) -> str | None:
    if not stage.files()[setting]:
        return ""
    _, part = catalogue.divided(stage.files()[setting])
    try:
        return checkpoint.digest(stage.locate(setting)) + (f",part={part}" if part else "")
    except (UserError, OSError, ValueError):  # If the stage has to run, the run is refused.
        return None


def _action(
    node: Node,
    parts: dict[str, Any],
    workdir: Path,
    upstream: dict[str, Decision],
    only: tuple[str, ...],
    force: bool,
) -> tuple[str, str]:
    folder = workdir / node.name
    done = is_done(folder)
    if only and node.name not in only:
        return "leave", "finished, not asked for" if done else "not asked for"
    inputs = [upstream[name] for name in node.needs.values()]
    for needed in inputs:
        if node.stage.redone_freely and not is_done(workdir / needed.node.name):
            continue  # such as a report, which shows what there is
        if needed.action == "leave" and (unfit := _unfit(needed, workdir, upstream)):
            return "refuse", f"it needs {needed.node.name}, {unfit}"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return "refuse", f"expected a folder at {folder}: choose another --workdir"
    old = recorded(folder)
    if old is not None and not _has_results(folder):
        return "run", "new"  # It ended before it made anything, perhaps at a mistake in settings.
    if old is None:
        foreign = folder.exists() and any(p.suffix != ".tmp" for p in folder.iterdir())
        if foreign:
            return "refuse", f"{folder} was not made by this program: choose another --workdir"
        return "run", "new"
    if force and only:
        return "redo", "--force"
    # One that was finished and only lacks the record of that ends with the same results.
    again = [d.node.name for d in inputs if d.action == "run" and done]
    why = differences(node, old, parts) or (f"{again[0]} is run again" if again else "")
    if why and (force or node.stage.redone_freely):
        return "redo", f"--force; {why}" if force else why
    if why:
        return "refuse", (
            f"{folder} holds another run: {why}; choose another --workdir, or --force to delete"
            " it and everything that was made from it"
        )
    return ("skip", "finished") if done else ("resume", "started, but not finished")


def _has_results(folder: Path) -> bool:
    return any(p.name not in (START, "config.json") for p in folder.iterdir())


def _unfit(needed: Decision, workdir: Path, upstream: dict[str, Decision]) -> str:
    folder = workdir / needed.node.name
    old = recorded(folder)
    if old is None or not is_done(folder):
        missing = _unfinished(needed, workdir, upstream)
        return f"which is not finished: add {','.join(dict.fromkeys(missing))} to --only"
    difference = differences(needed.node, old, needed.parts)
    return f"which holds another run: {difference}" if difference else ""


def _unfinished(needed: Decision, workdir: Path, upstream: dict[str, Decision]) -> list[str]:
    """Returns those of `needed` and the stages that it needs that are not asked for or finished."""
    if needed.action != "leave" or is_done(workdir / needed.node.name):
        return []
    before = [_unfinished(upstream[n], workdir, upstream) for n in needed.node.needs.values()]
    return [*(name for names in before for name in names), needed.node.name]


def differences(node: Node, old: dict[str, Any], new: dict[str, Any]) -> str:
    """Returns a text of the values that differ between two records of a stage; "" if none do."""
    if old.get("format") != FORMAT:
        return "it was made by an older version, whose settings had other names"
    lines = []
    for split, digest in new["images"].items():
        if digest != old["images"].get(split, digest):
            lines.append(f"the images, labels, masks or classes of split {split} changed")
    for key, digest in new["files"].items():
        if digest != old["files"].get(key, digest):
            lines.append(f"the file {node.name}.{key} changed")
    before, after = (_named(node.name, p) for p in (old, new))
    for key in sorted(before.keys() | after.keys()):
        if key not in before:
            lines.append(f"{key} was not set, is now {after[key]!r}")
        elif key not in after:
            lines.append(f"{key} was {before[key]!r}, is now not set")
        elif before[key] != after[key]:
            lines.append(f"{key} was {before[key]!r}, is now {after[key]!r}")
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    if not lines:
        # Upstream stages name their own values, so the name of the stage is enough.
        lines = [
            f"its input {node.needs.get(k, k)} differs"
            for k in sorted(old["needs"].keys() | new["needs"].keys())
            if old["needs"].get(k) != new["needs"].get(k)
        ]
    return ", ".join(lines[:3]) + more


def _named(name: str, parts: dict[str, Any]) -> dict[str, Any]:
    """Returns the values by their paths after ``--config.``."""
    tree = {name: parts["section"], "seed": parts["seed"], "data": parts["data"]}
    return dict(flatten(tree))


def remove(workdir: Path, name: str) -> None:
    """Deletes a stage's folder.

    Raises:
      UserError: it is a link, has no record of this program or is not directly inside `workdir`.
    """
    folder = workdir / name
    if not folder.exists():
        return
    inside = folder.resolve().parent == workdir.resolve() and not folder.is_symlink()
    if not inside or recorded(folder) is None:
        raise UserError(f"will not delete {folder}: it was not made by this program in {workdir}")
    # A deletion that is interrupted leaves a folder with a record that it is not finished.
    (folder / DONE).unlink(missing_ok=True)
    for path in files_below(folder):
        if path != folder / START:
            path.unlink()
    shutil.rmtree(folder)
