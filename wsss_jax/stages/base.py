"""The contract of stages: typed settings, needs, outputs and the work itself.

A stage is one module with a frozen dataclass that derives from `Stage` and whose fields are its
settings. A section of a recipe names it under ``type``, either by the name of a module in
`wsss_jax.stages` or by the dotted name of a module elsewhere.
"""

import abc
import dataclasses
import functools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from wsss_jax import console
from wsss_jax.accelerators.programs import DeviceProgram
from wsss_jax.data.class_names import check_mask_classes
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError, nearest
from wsss_jax.progress import Progress
from wsss_jax.report.planned import PlannedStage
from wsss_jax.settings import Settings


@dataclasses.dataclass(frozen=True)
class Context:
    """Everything that a running stage gets besides its own settings.

    Attributes:
      config: the whole recipe.
      workdir: the folder of the run.
      stage: the name of the stage.
      stage_dir: the folder that the stage writes to, which exists.
      process_index: the number of this process. Per-image stages work on
        ``ids[process_index::process_count]``.
      process_count: the number of processes.
      stages: all stages of the run, in the order in which they run.
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
        """The seed of the recipe, from which all random numbers follow."""
        return int(self.config.get("seed", 0))  # pyright: ignore[reportArgumentType]

    def source(self, split: str) -> Source:
        """Opens the records of `split`, which are prepared on first use."""
        data: Any = self.config.data
        return _open(data.to_json(sort_keys=True), split)

    def log(self, message: str) -> None:
        """Prints a line on the first process only."""
        if self.process_index == 0:
            console.say(f"[{self.stage}] {message}", stage=self.stage)

    def warn(self, message: str) -> str:
        """Prints a warning on the first process, and returns it for the metric ``warnings``."""
        self.log(f"WARNING: {message}")
        return message

    def progress(self, total: int, label: str, unit: str = "images", initial: int = 0) -> Progress:
        """Returns a progress bar, or plain lines without a terminal, with `initial` units done."""
        return Progress(total, label, unit, self.process_index == 0, initial)


@functools.lru_cache(maxsize=8)
def _open(data: str, split: str) -> Source:
    return DataSettings.from_config(json.loads(data), "data").open(split)


class SplitSize(NamedTuple):
    """The number of images in a split, and of foreground classes.

    `image_sizes` are the (height, width) of every image, or empty if they are not known yet.
    """

    images: int
    classes: int
    image_sizes: Sequence[tuple[int, int]] = ()


@dataclasses.dataclass(frozen=True)
class Need:
    """A stage that another one needs.

    Attributes:
      name: its name in the recipe.
      stage: its settings.
    """

    name: str
    stage: "Stage"


Needs = Mapping[str, Need]
"""The stages that a stage needs, by the names of its inputs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(Settings, abc.ABC):
    """A stage of a recipe, whose fields are its settings.

    Class attributes state what the rest of the program has to know about it:

    - ``inputs`` are the names of its mandatory needs, each with results of which the needed stage
      must have at least one among its outputs;
    - ``outputs`` are the results in its folder for other stages, folders (``masks/``) and files;
      they, ``config.json`` and ``metrics.json`` are compared with what it wrote before a stage that
      needs it runs;
    - ``no_effect`` are the settings that change how it runs but not its results;
    - ``redone_freely`` states whether it runs again without being asked whenever its record
      differs, because it takes seconds and no stage needs it.

    Attributes:
      needs: the names of the stages that it needs, by the names of its inputs.
    """

    room: ClassVar[str] = "wsss_jax.stages"
    key: ClassVar[str] = "type"
    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    outputs: ClassVar[tuple[str, ...]] = ()
    no_effect: ClassVar[frozenset[str]] = frozenset()
    redone_freely: ClassVar[bool] = False

    needs: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def splits(self) -> tuple[str, ...]:
        """Returns the data splits that it reads, by default that of its setting ``split``."""
        split: str = getattr(self, "split", "")
        return (split,) if split else ()

    def files(self) -> dict[str, str]:
        """Returns the settings that name files, with their values ("" for none).

        A record holds a digest of the contents of these files, and not their names.
        """
        return {}

    def locate(self, setting: str) -> Path:
        """Returns the path of the file that a setting of `files` names.

        Raises:
          UserError: there is no such file.
        """
        path = Path(self.files()[setting]).expanduser()
        if not path.exists():
            raise UserError(f"expected a file at {path} ({setting}), found none")
        return path

    def predictions(self) -> tuple[str, ...]:
        """Returns what the network that it trains predicts, by default nothing.

        These are names of `wsss_jax.methods.base.Method.outputs`.
        """
        return ()

    def check(self, needs: Needs) -> None:
        """Refuses needs that cannot work, before any stage runs and without the data.

        Raises:
          UserError: a need of `inputs` is missing, its stage does not have these outputs, or there
            is another need, whose stage finds no threshold that a setting could refer to.
        """
        if self.inputs:
            refuse_unknown(needs, self.inputs)
        for name, any_of in self.inputs.items():
            expect(needs, name, *any_of)

    def check_data(self, ctx: Context) -> None:
        """Refuses settings that do not fit the data, before the first stage of a run begins.

        By default, these are more classes than masks can hold, for a stage that makes masks.

        Raises:
          UserError: a setting does not fit the data.
        """
        if "masks/" in self.outputs:
            for split in self.splits():
                check_mask_classes(len(ctx.source(split).classes))

    def check_files(self, classes: int | None) -> None:
        """Refuses files of the setting `files` that hold something else, by default none.

        All of them are there. Like `check_data`, this is before the first stage of a run begins.

        Args:
          classes: the number of foreground classes, or None if it is not known yet.

        Raises:
          UserError: a file does not fit the stage.
        """
        del classes

    def describe(self, sizes: Mapping[str, SplitSize], asked: bool) -> list[str]:
        """Returns lines for the plan of a dry run: what data and machine make of it, if anything.

        Args:
          sizes: the sizes of the available splits, by name.
          asked: whether this run would include the stage. If not, it does not refuse what only a
            run has to refuse.

        Raises:
          UserError: the stage cannot run on this machine or with this data.
        """
        del sizes, asked
        return []

    def details(self, sizes: Mapping[str, SplitSize]) -> list[str]:
        """Returns lines about its method and what its work costs, by default none.

        A dry run shows them if asked to, because finding them takes seconds.

        Args:
          sizes: the sizes of the available splits, by name.
        """
        del sizes
        return []

    def programs(
        self, sizes: Mapping[str, SplitSize], needs: Needs, mesh: Mesh
    ) -> list[DeviceProgram] | None:
        """Returns the programs that it runs on the devices of `mesh`, by default None for none.

        They are lowered from shapes alone, so that a dry run can tell what they cost on devices
        that are not at hand.

        Args:
          sizes: the sizes of the available splits, by name.
          needs: the stages that it needs.
          mesh: the devices of all processes.

        Returns:
          The programs, which are empty if there are some but they cannot be known.
        """
        del sizes, needs, mesh
        return None

    @abc.abstractmethod
    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Does the work, or continues it after an interruption.

        Args:
          ctx: the data, folder and log of the run.
          inputs: the folders of the needed stages, by the names of the inputs.

        Returns:
          The metrics of the stage, which become ``metrics.json``.

        Raises:
          UserError: the data or the results of other stages are not as expected.
          Interrupted: the stage stopped on request after it had saved its state.
        """


def refuse_unknown(needs: Needs, known: Collection[str]) -> None:
    """Refuses needs that are not `known`, except for stages that find a threshold.

    Settings can refer to a threshold as ``from:NEED``, with any name.

    Raises:
      UserError: there is such a need.
    """
    for name, need in needs.items():
        if name not in known and "metrics.json" not in need.stage.outputs:
            raise UserError(
                f"expected needs.{name} to name a stage that makes metrics.json for from:{name}, or"
                f" to be needs.{' or needs.'.join(known)}, found {need.name}{nearest(name, known)}"
            )


def expect(needs: Needs, name: str, *any_of: str) -> None:
    """Checks that there is a need `name` whose stage has one of `any_of` among its outputs.

    Raises:
      UserError: the need is missing, or its stage has none of these outputs.
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
    """Checks that the network of the need ``checkpoint`` predicts `output`, if this is known.

    Args:
      needs: the needs of the stage, which include ``checkpoint``.
      output: one of the outputs of a method.
      setting: the setting that asks for this output, or "" if the stage always needs it.

    Raises:
      UserError: the network does not predict `output`.
    """
    need = needs["checkpoint"]
    predicted = need.stage.predictions()
    if predicted and output not in predicted:
        raise UserError(
            f"expected needs.checkpoint to name a stage whose network predicts {output}, found"
            f" {need.name}, whose network predicts {', '.join(predicted)}: name another one"
            + (f", or change {setting}" if setting else "")
        )
