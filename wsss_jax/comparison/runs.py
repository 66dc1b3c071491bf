"""The runs of a comparison: which there are, how far each is, and running one."""

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from wsss_jax.comparison.trials import SPLITS
from wsss_jax.errors import UserError
from wsss_jax.pipeline import graph, record
from wsss_jax.pipeline.config import find_recipe, read_recipe, shipped_recipes
from wsss_jax.stages.base import Context

_COMPARED = ("infer_cam", "predict")  # of a recipe that scores both, the first


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe with the values given on the command line; `method` is the last it trains for
    what is compared, or "Upper bound" where that learns from the true masks.

    `scored` maps train and val to the evaluations that are compared, `needed` are these and all
    stages they are made from.
    """

    name: str
    path: Path
    overrides: tuple[str, ...]
    stages: tuple[graph.Node, ...]
    scored: dict[str, str]
    needed: tuple[str, ...]
    method: str
    data: str

    def config(self, seed: int) -> ConfigDict:
        """The recipe with all values resolved."""
        return read_recipe(str(self.path), (*self.overrides, f"--config.seed={seed}"))


@dataclasses.dataclass(frozen=True, eq=False)
class Planned:
    """A recipe with a seed, in a folder of its own; `only` are the stages to run."""

    recipe: Recipe
    seed: int
    config: ConfigDict
    workdir: Path
    only: tuple[str, ...]

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.recipe.name}, seed {self.seed}"


def read_recipes(names: Sequence[str], overrides: Sequence[str]) -> tuple[Recipe, ...]:
    """The recipes `names` (paths or shipped ones) with the flags ``--config.KEY=VALUE``.

    Raises:
      UserError: no such recipe, a value it does not have (the recipe is named), nothing to compare
        in it, two of one name, or recipes on different data.
    """
    if not names:
        shipped = ", ".join(shipped_recipes())
        raise UserError(f"--configs is missing: recipes with commas between them, of {shipped}")
    recipes = []
    for name in names:
        path = find_recipe(name)
        try:
            recipes.append(_recipe(path, tuple(overrides)))
        except UserError as error:
            raise UserError(f"recipe {path.stem}: {error}") from error
    for place, recipe in enumerate(recipes):
        if recipe.name in [other.name for other in recipes[:place]]:
            raise UserError(f"expected every recipe once, found {recipe.name} twice in --configs")
        if recipe.data != recipes[0].data:
            raise UserError(
                f"expected recipes on the same data, found {recipes[0].name} on {recipes[0].data}"
                f" and {recipe.name} on {recipe.data}"
            )
    return tuple(recipes)


def _recipe(path: Path, overrides: tuple[str, ...]) -> Recipe:
    config: Any = read_recipe(str(path), overrides)
    stages = graph.stages(config)
    scored = _compared(stages)
    if not scored:
        raise UserError("expected it to score maps or masks of train or val, found no such stage")
    needed = _with_makers(stages, set(scored.values()))
    return Recipe(
        name=path.stem,
        path=path,
        overrides=overrides,
        stages=stages,
        scored=scored,
        needed=needed,
        method=_method([s for s in stages if s.type == "train" and s.name in needed]),
        data=config.data.to_json(sort_keys=True),
    )


def _compared(stages: Sequence[graph.Node]) -> dict[str, str]:
    """The evaluations that are compared, by split: of the maps, else of a network's masks."""
    types = {stage.name: stage.type for stage in stages}
    for kind in _COMPARED:
        found: dict[str, str] = {}
        for stage in stages:
            split = stage.section.get("split")
            of_kind = types.get(stage.needs.get("pred", "")) == kind
            if stage.type == "evaluate" and of_kind and split in SPLITS:
                found.setdefault(str(split), stage.name)
        if found:
            return found
    return {}


def _method(trained: Sequence[graph.Node]) -> str:
    if any(stage.section.get("ground_truth") for stage in trained):
        return "Upper bound"
    return str(trained[-1].section.get("method", {}).get("name", "")) if trained else ""


def _with_makers(stages: Sequence[graph.Node], names: set[str]) -> tuple[str, ...]:
    for stage in reversed(stages):  # they are in order, so one pass suffices
        if stage.name in names:
            names = names | set(stage.needs.values())
    return tuple(stage.name for stage in stages if stage.name in names)


def plan(
    recipes: Sequence[Recipe], seeds: Sequence[int], folder: Path, all_stages: bool
) -> tuple[Planned, ...]:
    """Every recipe with every seed, all recipes with the first seed first.

    So a comparison that was stopped early still has all recipes.
    """
    return tuple(
        Planned(
            recipe=recipe,
            seed=seed,
            config=recipe.config(seed),
            workdir=folder / recipe.name / f"seed{seed}",
            only=tuple(s.name for s in recipe.stages) if all_stages else recipe.needed,
        )
        for seed in seeds
        for recipe in recipes
    )


def state(planned: Planned) -> tuple[str, str]:
    """``finished``, ``new``, ``begun`` or ``refused`` (with the reason), of what is compared."""
    try:
        decisions = _decisions(planned)
    except UserError as error:
        return "refused", str(error)
    refused = [f"stage {d.node.name}: {d.reason}" for d in decisions if d.action == "refuse"]
    if refused:
        return "refused", refused[0]
    actions = {d.action for d in decisions if d.node.name in planned.recipe.needed}
    if actions == {"skip"}:
        return "finished", ""
    return ("new", "") if actions == {"run"} else ("begun", "")


def complete(planned: Planned) -> bool:
    """Whether there is nothing left to run, not even of what is not compared."""
    if state(planned)[0] != "finished":
        return False
    return all(d.action == "skip" for d in _decisions(planned) if d.node.name in planned.only)


def _decisions(planned: Planned) -> tuple[record.Decision, ...]:
    plain = json.loads(planned.config.to_json_best_effort())
    stages, folder = planned.recipe.stages, planned.workdir
    digests: dict[str, str | None] = {}
    if folder.is_dir():
        wanted = {split for s in stages if s.name in planned.only for split in s.stage.splits()}
        # Images that have been moved away are taken as unchanged.
        with contextlib.suppress(UserError):
            context = Context(planned.config, folder, "", folder)
            digests = {split: context.source(split).digest for split in sorted(wanted)}
    return record.decide(stages, plain, digests, folder, planned.only)


def run(planned: Planned) -> str:
    """Runs it to the end, its output is shown; returns why it failed, nothing if it did not."""
    command = [
        *(sys.executable, "-m", "wsss_jax.main", f"--config={planned.recipe.path}"),
        *(f"--workdir={planned.workdir}", f"--only={','.join(planned.only)}"),
        *(*planned.recipe.overrides, f"--config.seed={planned.seed}"),
    ]
    status, last = _child(command)
    if status < 0:
        why = ", as happens when memory runs out" if -status == signal.SIGKILL else ""
        return f"ended by signal {signal.Signals(-status).name}{why}"
    if status:
        return last.removeprefix("error: ")
    word, reason = state(planned)
    return "" if word == "finished" else reason or "stopped before it was finished"


def _child(command: Sequence[str]) -> tuple[int, str]:
    """Exit status and last line of a process; an interrupt is handed on and waited for."""
    last = ""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Ctrl-C comes to this process alone, which hands on a single signal.
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        try:
            for line in output:
                # How to go on is told for the whole comparison.
                if not line.startswith("to resume: "):
                    print(line, end="", flush=True)
                    last = line.strip() or last
        except BaseException:
            process.terminate()
            for line in output:
                if not line.startswith(("to resume: ", "interrupted; ", "stopped: ")):
                    print(line, end="", file=sys.stderr, flush=True)
            process.wait()
            raise
    return process.wait(), last
