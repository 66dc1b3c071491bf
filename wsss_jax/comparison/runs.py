"""Plans the runs of a comparison, finds their state, and runs them."""

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

_COMPARED = ("infer_cam", "predict")  # If a recipe scores both, the first is compared.


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe with the values of the command line.

    Attributes:
      name: the name of its file.
      path: its file.
      overrides: the values of the command line.
      stages: its stages in order.
      scored: the evaluations that are compared, by split (train and val).
      needed: the names of these evaluations and of all stages that they depend on.
      method: the last method that is trained for what is compared, or "Upper bound" if it learns
        from the true masks.
      data: the settings of its data set as JSON.
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
        """Returns the recipe with all values resolved."""
        return read_recipe(str(self.path), (*self.overrides, f"--config.seed={seed}"))


@dataclasses.dataclass(frozen=True, eq=False)
class Planned:
    """A recipe with a seed, in its own folder; `only` are the stages to run."""

    recipe: Recipe
    seed: int
    config: ConfigDict
    workdir: Path
    only: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the run in messages."""
        return f"{self.recipe.name}, seed {self.seed}"


def read_recipes(names: Sequence[str], overrides: Sequence[str]) -> tuple[Recipe, ...]:
    """Reads the recipes `names` (paths or shipped ones) with the flags ``--config.KEY=VALUE``.

    Raises:
      UserError: a recipe does not exist, lacks a value (the recipe is named) or has nothing to
        compare, two recipes have the same name, or the recipes have different data.
    """
    if not names:
        shipped = ", ".join(shipped_recipes())
        raise UserError(f"--configs is missing: name recipes with commas between them ({shipped})")
    recipes = []
    for name in names:
        path = find_recipe(name)
        try:
            recipes.append(_recipe(path, tuple(overrides)))
        except UserError as error:
            raise UserError(f"recipe {path.stem}: {error}") from error
    for place, recipe in enumerate(recipes):
        if recipe.name in [other.name for other in recipes[:place]]:
            raise UserError(
                f"expected every recipe once in --configs, found {recipe.name} twice: remove one"
            )
        if recipe.data != recipes[0].data:
            raise UserError(
                f"expected recipes on the same data, found {recipes[0].name} on {recipes[0].data}"
                f" and {recipe.name} on {recipe.data}: compare them separately"
            )
    return tuple(recipes)


def _recipe(path: Path, overrides: tuple[str, ...]) -> Recipe:
    config: Any = read_recipe(str(path), overrides)
    stages = graph.stages(config)
    scored = _compared(stages)
    if not scored:
        raise UserError(
            "expected stages that score maps or masks of train or val, found none: add evaluate"
            " stages"
        )
    needed = _with_makers(stages, set(scored.values()))
    return Recipe(
        name=path.stem,
        path=path,
        overrides=overrides,
        stages=stages,
        scored=scored,
        needed=needed,
        method=_method(
            [s for s in stages if s.type in ("train", "prototypes") and s.name in needed]
        ),
        data=config.data.to_json(sort_keys=True),
    )


def _compared(stages: Sequence[graph.Node]) -> dict[str, str]:
    """Returns the evaluations of maps by split or, if there are none, of a network's masks."""
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
    for stage in reversed(stages):  # One pass suffices, because they are in order.
        if stage.name in names:
            names = names | set(stage.needs.values())
    return tuple(stage.name for stage in stages if stage.name in names)


def plan(
    recipes: Sequence[Recipe], seeds: Sequence[int], folder: Path, all_stages: bool
) -> tuple[Planned, ...]:
    """Plans every recipe with every seed, first all recipes with the first seed.

    A comparison that is stopped early therefore still has all recipes.
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
    """Returns ``finished``, ``new``, ``begun`` or ``refused``, and the reason for the last one."""
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
    """Returns whether nothing is left to run, including stages that are not compared."""
    if state(planned)[0] != "finished":
        return False
    return all(d.action == "skip" for d in _decisions(planned) if d.node.name in planned.only)


def _decisions(planned: Planned) -> tuple[record.Decision, ...]:
    plain = json.loads(planned.config.to_json_best_effort())
    stages, folder = planned.recipe.stages, planned.workdir
    digests: dict[str, str | None] = {}
    if folder.is_dir():
        wanted = {split for s in stages if s.name in planned.only for split in s.stage.splits()}
        # Images that have been moved count as unchanged.
        with contextlib.suppress(UserError):
            context = Context(planned.config, folder, "", folder)
            digests = {split: context.source(split).digest for split in sorted(wanted)}
    return record.decide(stages, plain, digests, folder, planned.only)


def run(planned: Planned) -> str:
    """Runs it to the end and shows its output; returns why it failed, or "" if it did not."""
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
    """Returns the exit status and the last line of a process; passes an interrupt on and waits."""
    last = ""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Ctrl-C then only reaches this process, which passes a single signal on.
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        try:
            for line in output:
                # The comparison prints its own command for resuming.
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
