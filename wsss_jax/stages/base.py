"""What a stage is given, and what stages say of each other before any of them runs.

A stage's module may export `MAKES`, the names of what its folder will hold for others, and
``check(config, needs)``, which refuses settings that its `run` would refuse hours later.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from wsss_jax.data.sets.base import DataSettings
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.progress import Progress
from wsss_jax.report.planned import PlannedStage


@dataclasses.dataclass(frozen=True)
class Context:
    """One run of one stage.

    `config` is the whole configuration, `stage_dir` (existing) the folder the stage writes to.
    Per-image stages work on ``ids[process_index::process_count]``; `stages` are all of the run, in
    the order they run.
    """

    config: ConfigDict
    workdir: Path
    stage: str
    stage_dir: Path
    process_index: int = 0
    process_count: int = 1
    stages: tuple[PlannedStage, ...] = ()

    def source(self, split: str) -> Source:
        """The records of `split` (prepared on first use)."""
        data: Any = self.config.data
        return _open(data.to_json(sort_keys=True), split)

    def log(self, message: str) -> None:
        """Prints a line, on the first process only."""
        if self.process_index == 0:
            print(f"[{self.stage}] {message}", flush=True)

    def progress(self, total: int, label: str, unit: str = "images", initial: int = 0) -> Progress:
        """A progress bar (plain lines when the output is not a terminal), `initial` units done."""
        return Progress(total, label, unit, self.process_index == 0, initial)


@functools.lru_cache(maxsize=8)
def _open(data: str, split: str) -> Source:
    return DataSettings.from_config(json.loads(data), "data").open(split)


@dataclasses.dataclass(frozen=True)
class Need:
    """A stage that another one needs.

    Attributes:
      stage: its name.
      type: its type.
      settings: its section of the config.
      makes: what its folder will hold for others; None: its module does not say.
    """

    stage: str
    type: str
    settings: Mapping[str, Any]
    makes: tuple[str, ...] | None


Needs = Mapping[str, Need]


def expect(needs: Needs, name: str, *any_of: str) -> None:
    """Refuses needs without `name`, or where that stage makes none of `any_of`.

    Raises:
      UserError: see above.
    """
    wanted = " or ".join(any_of)
    if name not in needs:
        raise UserError(f"expected needs.{name}, a stage that makes {wanted}, found none: name one")
    need = needs[name]
    if need.makes is not None and not set(any_of) & set(need.makes):
        raise UserError(
            f"expected needs.{name} to name a stage that makes {wanted}, found {need.stage}, which"
            f" makes {', '.join(need.makes) or 'nothing for others'}: name another one"
        )


def expect_alpha(needs: Needs, name: str, alpha: float) -> None:
    """Refuses an α that the crf stage of the need `name` has no result for.

    Raises:
      UserError: see above.
    """
    made = needs[name].settings.get("alphas")
    if made is not None and float(alpha) not in [float(one) for one in made]:
        raise UserError(
            f"expected one of the alphas of {needs[name].stage},"
            f" {', '.join(f'{one:g}' for one in made)}, found {alpha:g}: change one of them"
        )
