"""Reads the results of a run from the folders of its stages; parts that are missing are empty."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from wsss_jax import digests
from wsss_jax.files import DONE, make_again
from wsss_jax.records import read_record
from wsss_jax.report.planned import PlannedStage
from wsss_jax.training.metrics import read_metrics

_BUILDERS = {"voc2012": "VOC 2012"}
# Folders that say nothing about the data: .../voc_animals/VOCdevkit/VOC2012 is voc_animals.
_DEVKIT = ("VOC2012", "VOCdevkit", "/", "~", ".", "..")
_STORES = ("data", "dataset", "datasets", "downloads", "home", "mnt", "root", "tmp", "voc")
# Seeds come before what is made of them, whatever the order of their evaluation.
_READING_ORDER = ("infer_cam", "crf", "random_walk", "pseudo_labels", "predict")


@dataclasses.dataclass(frozen=True)
class StageResult:
    """The settings and results of a stage; `metrics` is empty if it has not finished.

    `needs` maps input names to stage names, `upstream` names all stages it was made from, the
    nearest first; `seconds` and `device` say how long it took on what (None and empty where that
    was not recorded). `damage` says what is wrong with the files of figures, if something is.
    """

    name: str
    type: str
    folder: Path
    section: dict[str, Any]
    metrics: dict[str, Any]
    needs: dict[str, str]
    upstream: tuple[str, ...]
    seconds: float | None
    device: str
    damage: str = ""

    @property
    def finished(self) -> bool:
        """Whether the stage has a result."""
        return bool(self.metrics)


@dataclasses.dataclass(frozen=True)
class Training:
    """A training stage with its rows of figures by step."""

    stage: StageResult
    rows: list[dict[str, Any]]

    @property
    def seconds(self) -> float | None:
        """The duration of the training, from the whole stage or from its own record."""
        seconds = self.stage.seconds
        return _number(self.stage.metrics, "seconds") if seconds is None else seconds

    @property
    def images_per_second(self) -> float | None:
        """The rate of the training, from its record or as the median of its rows."""
        rate = _number(self.stage.metrics, "images_per_second")
        if rate is not None:
            return rate
        rates = sorted(
            row["images_per_second"] for row in self.rows if row.get("images_per_second")
        )
        return rates[len(rates) // 2] if rates else None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of the output of `scored`; `chain` are all stages upstream, the nearest first."""

    stage: StageResult
    chain: tuple[StageResult, ...]

    @property
    def scored(self) -> StageResult:
        """The stage whose output was scored."""
        return self.makers[0] if self.makers else self.stage

    @property
    def makers(self) -> tuple[StageResult, ...]:
        """The stages that made the output; evaluations upstream only gave a threshold."""
        return tuple(stage for stage in self.chain if stage.type != "evaluate")

    @property
    def split(self) -> str:
        """The split of the scores."""
        return str(self.find("split", default=""))

    def find(self, key: str, default: Any = None) -> Any:
        """Finds `key` in the evaluation's metrics or settings, or the nearest stage upstream."""
        for stage in (self.stage, *self.makers):
            for values in (stage.metrics, stage.section):
                if values.get(key) not in (None, ""):
                    return values[key]
        return default

    def folder(self, name: str) -> Path | None:
        """Returns the nearest upstream folder called `name`, such as ``masks`` or ``cams``."""
        folders = (stage.folder / name for stage in self.makers)
        return next((folder for folder in folders if folder.is_dir()), None)

    @property
    def threshold_from(self) -> StageResult | None:
        """The evaluation whose best threshold is used (``from:NEED``), if there is one."""
        for stage in (self.stage, *self.makers):
            setting = stage.section.get("threshold")
            if isinstance(setting, str) and setting.startswith("from:"):
                name = stage.needs.get(setting.removeprefix("from:"))
                return next((other for other in self.chain if other.name == name), None)
        return None


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that the report shows except for images."""

    name: str
    method: str
    backbone: str
    data: dict[str, Any]
    seed: Any
    stages: tuple[StageResult, ...]
    trainings: tuple[Training, ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def unfinished(self) -> tuple[str, ...]:
        """The names of the stages without a result."""
        return tuple(stage.name for stage in self.stages if not stage.finished)

    @property
    def warnings(self) -> tuple[tuple[str, str], ...]:
        """The names of stages and the warnings that they left, in order."""
        return tuple(
            (stage.name, str(warning))
            for stage in self.stages
            for warning in (
                *(stage.metrics.get("warnings") or ()),
                *([stage.damage] if stage.damage else []),
            )
        )

    @property
    def data_name(self) -> str:
        """A short name of the data set, from the folder of the images or the builder."""
        builder = str(self.data.get("builder") or "unknown data")
        parts = Path(str(self.data.get("root") or "")).parts
        named = [part for part in parts if part not in _DEVKIT]
        if named and named[-1].lower() not in _STORES:
            return named[-1]
        if self.data.get("classes"):  # a file of class names means that they are not VOC's
            return "own data"
        return _BUILDERS.get(builder, builder)


def collect(
    stages: Iterable[PlannedStage], config: ConfigDict, workdir: Path, own_name: str
) -> Run:
    """Reads the folders of the `stages` of `config` in `workdir`, except for the report's own.

    Args:
      stages: every one after the stages it needs.
      config: of the run.
      workdir: of the run.
      own_name: the report's stage, empty where there is none.
    """
    results: dict[str, StageResult] = {}
    for stage in stages:
        if stage.name == own_name or stage.type == "report":
            continue
        # What is scored or turned into masks comes before what only gives a threshold.
        needs = sorted(stage.needs.items(), key=lambda need: need[0] not in ("pred", "cams"))
        near = [name for _, name in needs if name in results]
        upstream = [*near, *(up for name in near for up in results[name].upstream)]
        folder = workdir / stage.name
        done = _object(folder / DONE)
        results[stage.name] = StageResult(
            name=stage.name,
            type=stage.type,
            folder=folder,
            section=_object(folder / "config.json") or stage.section,
            metrics=_object(folder / "metrics.json"),
            needs=stage.needs,
            upstream=tuple(dict.fromkeys(upstream)),
            seconds=_number(done, "seconds"),
            device=str(done.get("device", "")),
            damage=digests.damage(folder, _is_figures),
        )
    trainings = tuple(
        Training(stage, read_metrics(stage.folder))
        for stage in results.values()
        if stage.type == "train" and stage.finished
    )
    evaluations = tuple(
        Evaluation(stage, tuple(results[name] for name in stage.upstream))
        for stage in results.values()
        if stage.type == "evaluate" and "miou" in stage.metrics
    )
    evaluations = tuple(sorted(evaluations, key=lambda e: _rank(e.scored.type)))
    method = _named(_main_training(results).get("method"))
    backbone = _named(method.get("backbone"))
    data: Any = config.get("data")
    return Run(
        name=str(config.get("name") or workdir.resolve().name),
        method=str(method.get("name", "")),
        backbone=f"{backbone.get('name', '')}{backbone.get('depth', '')}",
        data={} if data is None else data.to_dict(),
        seed=config.get("seed"),
        stages=tuple(results.values()),
        trainings=trainings,
        evaluations=evaluations,
    )


def _main_training(results: dict[str, StageResult]) -> dict[str, Any]:
    """Returns the settings of the network of the maps, or of the masks, or of the first training.

    If several networks make maps, it is the last one, because the maps of the others serve it.
    """
    stages = results.values()
    last_first = [*reversed(stages)]
    makers = [s for kind in ("infer_cam", "predict") for s in last_first if s.type == kind]
    trained = [
        results[s.needs["checkpoint"]] for s in makers if s.needs.get("checkpoint") in results
    ]
    trained += [s for s in stages if s.type == "train"]
    return trained[0].section if trained else {}


def _named(part: Any) -> dict[str, Any]:
    """Returns a part of the settings that can also be a bare name."""
    return part if isinstance(part, dict) else {"name": part or ""}


def _rank(kind: str) -> int:
    return _READING_ORDER.index(kind) if kind in _READING_ORDER else len(_READING_ORDER)


def _is_figures(name: str) -> bool:
    return "/" not in name and name.endswith((".json", ".jsonl"))


def _object(path: Path) -> dict[str, Any]:
    return read_record(path, {}, make_again(path)) if path.exists() else {}


def _number(values: dict[str, Any], key: str) -> float | None:
    value = values.get(key)
    return float(value) if isinstance(value, int | float) else None
