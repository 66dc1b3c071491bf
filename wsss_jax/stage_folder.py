"""What a stage's folder says about the run that made it, and what is to be done about it.

``_START.json`` is written when a stage begins and holds everything its results depend on;
``_DONE.json`` closes the folder. Comparing the first with the present config tells which value
differs; the second says that the work is finished.
"""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from wsss_jax.config import flatten
from wsss_jax.errors import UserError
from wsss_jax.files import read_json
from wsss_jax.graph import Stage, downstream

START, DONE = "_START.json", "_DONE.json"

# How a run is watched and kept, not what comes out of it: free to change between two attempts.
_NO_EFFECT = ("log_every", "image_every", "checkpoint_every", "keep", "num_threads", "prefetch")
# Where the data lies; what it holds is in the digests of the splits.
_LOCATION = ("root", "labels", "data_dir")


@dataclasses.dataclass(frozen=True)
class Decision:
    """What is to be done with a stage: `action` is one of

    ``run``, ``resume``, ``skip`` (finished), ``redo`` (--force), ``refuse``, ``leave`` (not asked
    for); `reason` is shown to the user.
    """

    stage: Stage
    parts: dict[str, Any]
    digest: str
    action: str
    reason: str


def decide(
    stages: tuple[Stage, ...],
    settings: dict[str, Any],
    sources: dict[str, str | None],
    workdir: Path,
    only: tuple[str, ...] = (),
    force: bool = False,
) -> tuple[Decision, ...]:
    """What is to be done with each stage, in order; reads `workdir` and changes nothing.

    `settings` is the config as plain values (its ``seed`` and ``data`` are used); `sources` maps
    a split to the digest of its data, None where that is not known (not compared then).
    """
    decisions: dict[str, Decision] = {}
    for stage in stages:
        parts = _parts(stage, settings, sources, {n: d.digest for n, d in decisions.items()})
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        action, reason = _action(stage, parts, workdir, decisions, only, force)
        decisions[stage.name] = Decision(stage, parts, digest, action, reason)
    redone = downstream(stages, {n for n, d in decisions.items() if d.action == "redo"})
    for name in redone:
        decision = decisions[name]
        if decision.action in ("skip", "resume", "refuse", "leave") and _begun(workdir / name):
            asked = not only or name in only
            decisions[name] = dataclasses.replace(
                decision,
                action="redo" if asked else "remove",
                reason="made from a stage that is done again",
            )
    return tuple(decisions.values())


def _parts(
    stage: Stage,
    settings: dict[str, Any],
    sources: dict[str, str | None],
    digests: dict[str, str],
) -> dict[str, Any]:
    return {
        "section": {k: v for k, v in stage.section.items() if k not in _NO_EFFECT},
        "seed": settings.get("seed"),
        "data": {k: v for k, v in settings.get("data", {}).items() if k not in _LOCATION},
        "images": {split: sources.get(split) for split in stage.splits()},
        "needs": {name: digests[upstream] for name, upstream in sorted(stage.needs.items())},
    }


def _action(
    stage: Stage,
    parts: dict[str, Any],
    workdir: Path,
    upstream: dict[str, Decision],
    only: tuple[str, ...],
    force: bool,
) -> tuple[str, str]:
    folder = workdir / stage.name
    asked = not only or stage.name in only
    inputs = [upstream[name] for name in stage.needs.values()]
    if not asked:
        return "leave", "finished" if (folder / DONE).is_file() else "not asked for"
    for needed in inputs:
        if needed.action == "leave":
            unlike = _differs(needed, workdir)
            if unlike:
                return "refuse", f"it needs {needed.stage.name}, {unlike}"
    if folder.exists() and not folder.is_dir():
        return "refuse", f"{folder} is a file: move it away or choose another --workdir"
    if not _begun(folder):
        strange = [p.name for p in folder.iterdir() if p.suffix != ".tmp"] if folder.exists() else []
        if strange:
            return "refuse", f"{folder} was not made by this program: choose another --workdir"
        return "run", "new"
    if force and only:
        return "redo", "--force"
    difference = differences(stage, read_json(folder / START)["parts"], parts)
    if difference:
        if force:
            return "redo", f"--force; {difference}"
        return "refuse", f"{folder} holds a run of another config: {difference}"
    again = [d.stage.name for d in inputs if d.action in ("run", "resume")]
    if again and (folder / DONE).is_file():
        if force:
            return "redo", f"--force; {again[0]} runs again"
        return "refuse", f"{folder} was made from another run of {again[0]}, which is gone"
    return ("skip", "finished") if (folder / DONE).is_file() else ("resume", "begun")


def _differs(needed: Decision, workdir: Path) -> str:
    folder = workdir / needed.stage.name
    if not (folder / DONE).is_file():
        return f"which is not finished: run it first (add {needed.stage.name} to --only)"
    difference = differences(needed.stage, read_json(folder / START)["parts"], needed.parts)
    return f"which holds a run of another config: {difference}" if difference else ""


def differences(stage: Stage, old: dict[str, Any], new: dict[str, Any]) -> str:
    """The values that differ between two records of a stage, as text; empty when none does."""
    lines = []
    for split, digest in new["images"].items():
        before = old["images"].get(split)
        # Without the data set at hand (dry run) its digest is unknown and not compared.
        if digest is not None and before is not None and digest != before:
            lines.append(f"the data of split {split} changed")
    before, after = (_named(stage.name, p) for p in (old, new))
    for key in sorted(before.keys() | after.keys()):
        if key not in before:
            lines.append(f"{key} was not set, is now {after[key]!r}")
        elif key not in after:
            lines.append(f"{key} was {before[key]!r}, is now not set")
        elif before[key] != after[key]:
            lines.append(f"{key} was {before[key]!r}, is now {after[key]!r}")
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    if not lines:
        # Upstream stages name the value themselves; here it is enough to say which.
        lines = [
            f"its input {stage.needs.get(k, k)} differs"
            for k in sorted(old["needs"].keys() | new["needs"].keys())
            if old["needs"].get(k) != new["needs"].get(k)
        ]
    return ", ".join(lines[:3]) + more


def _named(name: str, parts: dict[str, Any]) -> dict[str, Any]:
    """Values by the path a user types after ``--config.``."""
    tree = {name: parts["section"], "seed": parts["seed"], "data": parts["data"]}
    return dict(flatten(json.loads(json.dumps(tree))))


def _begun(folder: Path) -> bool:
    return (folder / START).is_file()


def remove(workdir: Path, name: str) -> None:
    """Deletes a stage's folder.

    Raises:
      UserError: it is no folder of ours directly inside `workdir` (a link, or without record).
    """
    folder = workdir / name
    if not folder.exists():
        return
    inside = folder.resolve().parent == workdir.resolve() and not folder.is_symlink()
    if not inside or not _begun(folder):
        raise UserError(f"will not delete {folder}: it was not made by this program in {workdir}")
    # The record goes last: a deletion cut short is still recognised as ours.
    for entry in folder.iterdir():
        if entry.name != START:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    shutil.rmtree(folder)
