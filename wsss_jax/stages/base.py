"""What a stage is: typed settings, what it needs of other stages and leaves for them, and its work.

A stage is one module: a frozen dataclass derived from `Stage`, whose fields are its settings. A
recipe's section names it under ``type``, by the name of a module of `wsss_jax.stages` or by the
dotted name of a module elsewhere.
"""

import abc
import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ml_collections import ConfigDict

from wsss_jax.data.sets.base import DataSettings
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.progress import Progress
from wsss_jax.report.planned import PlannedStage
from wsss_jax.settings import Settings


@dataclasses.dataclass(frozen=True)
class Context:
    """What a stage is given besides its own settings: one run of one stage.

    Attributes:
      config: the whole recipe.
      workdir: the folder of the run.
      stage: name of the stage.
      stage_dir: folder the stage writes to; it exists.
      process_index: number of this process. Per-image stages work on
        ``ids[process_index::process_count]``.
      process_count: number of all processes.
      stages: all stages of the run, in the order they run.
    """

    config: ConfigDict
    workdir: Path
    stage: str
    stage_dir: Path
    process_index: int = 0
    process_count: int = 1
    stages: tuple[PlannedStage, ...] = ()

    @property
    def seed(self) -> int:
        """The recipe's seed, of everything that is drawn."""
        return int(self.config.get("seed", 0))  # pyright: ignore[reportArgumentType]

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


class SplitSize(NamedTuple):
    """How many images a split has, and how many foreground classes."""

    images: int
    classes: int


@dataclasses.dataclass(frozen=True)
class Need:
    """A stage that another one needs.

    Attributes:
      name: what the recipe calls it.
      stage: its settings.
    """

    name: str
    stage: "Stage"


Needs = Mapping[str, Need]
"""The stages that a stage needs, by the names of its inputs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(Settings, abc.ABC):
    """A stage of a recipe; its fields are its settings.

    Class attributes say what other programs have to know of it:

    - ``inputs``: names of the needs that it cannot do without, with the results of which the needed
      stage has to leave at least one;
    - ``outputs``: results that its folder holds for other stages: folders (``masks/``) and files;
    - ``no_effect``: settings that change how it runs and not what comes out of it;
    - ``redone_freely``: whether it is done anew, without being asked to, whenever its record
      differs: it takes seconds and no stage needs it.

    Attributes:
      needs: names of the stages that it needs, by the names of its inputs.
    """

    room: ClassVar[str] = "wsss_jax.stages"
    key: ClassVar[str] = "type"
    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    outputs: ClassVar[tuple[str, ...]] = ()
    no_effect: ClassVar[frozenset[str]] = frozenset()
    redone_freely: ClassVar[bool] = False

    needs: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def splits(self) -> tuple[str, ...]:
        """Names of the data splits that it reads: by default that of its setting ``split``."""
        split: str = getattr(self, "split", "")
        return (split,) if split else ()

    def files(self) -> dict[str, str]:
        """Settings that name files, with the files' paths ("" for none).

        A record holds the files' contents, not their names.
        """
        return {}

    def predictions(self) -> tuple[str, ...]:
        """What the network that it trains predicts; by default nothing.

        These are the names of `wsss_jax.methods.base.Method.outputs`.
        """
        return ()

    def check(self, needs: Needs) -> None:
        """Refuses needs that cannot work, before any stage runs and without the data.

        Raises:
          UserError: a need of `inputs` is missing, or that stage leaves no such results.
        """
        for name, any_of in self.inputs.items():
            expect(needs, name, *any_of)

    def check_data(self, ctx: Context) -> None:
        """Refuses settings that do not fit the data, before the first stage of a run begins.

        Raises:
          UserError: they do not fit.
        """

    def describe(self, sizes: Mapping[str, SplitSize], asked: bool) -> list[str]:
        """Lines on what it is going to do, for a dry run: by default none.

        Args:
          sizes: of the splits that are at hand, by name.
          asked: whether this run would do it; what only a run has to refuse is else not refused.

        Raises:
          UserError: it cannot be done on this machine or with this data.
        """
        del sizes, asked
        return []

    @abc.abstractmethod
    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Does the work; called again after an interruption, it goes on where it stopped.

        Args:
          ctx: data, folder, log.
          inputs: folders of the needed stages, by the names of the inputs.

        Returns:
          The stage's figures, which become ``metrics.json``.

        Raises:
          UserError: the data or the results of other stages are not as expected.
          Interrupted: it stopped on request after saving its state.
        """


def expect(needs: Needs, name: str, *any_of: str) -> None:
    """Refuses needs without `name`, or where that stage leaves none of `any_of`.

    Raises:
      UserError: see above.
    """
    wanted = " or ".join(any_of)
    if name not in needs:
        raise UserError(f"expected needs.{name}, a stage that makes {wanted}, found none: name one")
    need = needs[name]
    if not set(any_of) & set(need.stage.outputs):
        raise UserError(
            f"expected needs.{name} to name a stage that makes {wanted}, found {need.name}, which"
            f" makes {', '.join(need.stage.outputs) or 'nothing for others'}: name another one"
        )


def expect_prediction(needs: Needs, output: str, setting: str = "") -> None:
    """Refuses a network of the need ``checkpoint`` that is known not to predict `output`.

    Args:
      needs: of the stage; they have a ``checkpoint``.
      output: one of a method's outputs.
      setting: what asks for it; empty where the stage always does.

    Raises:
      UserError: see above.
    """
    need = needs["checkpoint"]
    predicted = need.stage.predictions()
    if predicted and output not in predicted:
        raise UserError(
            f"expected needs.checkpoint to name a stage whose network predicts {output}, found"
            f" {need.name}, whose network predicts {', '.join(predicted)}: name another one"
            + (f", or change {setting}" if setting else "")
        )
