"""Tells which masks of a run are the best, and how to make more of them."""

import dataclasses
import shlex
from pathlib import Path

from wsss_jax.report.collect import Run, StageResult


@dataclasses.dataclass(frozen=True)
class Masks:
    """The best masks of a split.

    Attributes:
      split: the split.
      stage: the stage that made them.
      miou: their mIoU as a fraction, or None if no masks of the split are scored; then these are
        the ones that were made last.
      threshold: the threshold of maps that made them, or None.
      others: the other scored masks of the split with their mIoU, from the best.
    """

    split: str
    stage: StageResult
    miou: float | None
    threshold: float | None
    others: tuple[tuple[str, float], ...]

    @property
    def note(self) -> str:
        """What distinguishes them, as text."""
        if self.miou is None:
            told = f"{self.stage.name}, the last ones; none are scored"
        else:
            told = f"{self.stage.name}, {100 * self.miou:.1f} % mIoU"
        if self.threshold is not None:
            told += f", threshold {self.threshold:.2f}"
        if self.others:
            told += "; " + ", ".join(f"{name} {100 * miou:.1f}" for name, miou in self.others)
        return told


def best_masks(run: Run) -> tuple[Masks, ...]:
    """Returns the best masks of each split, in the order in which splits come up."""
    makers: dict[str, list[StageResult]] = {}
    for stage in run.stages:
        if stage.finished and (stage.folder / "masks").is_dir():
            makers.setdefault(str(stage.section.get("split", "")), []).append(stage)
    found = []
    for split, stages in makers.items():
        scored = {
            e.scored.name: float(e.stage.metrics["miou"])
            for e in run.evaluations
            if e.split == split and e.scored in stages
        }
        best = max(stages, key=lambda stage: scored.get(stage.name, -1)) if scored else stages[-1]
        threshold = best.metrics.get("threshold")
        order = sorted(scored.items(), key=lambda one: -one[1])
        found.append(
            Masks(
                split=split,
                stage=best,
                miou=scored.get(best.name),
                threshold=threshold if isinstance(threshold, float) else None,
                others=tuple(one for one in order if one[0] != best.name),
            )
        )
    return tuple(found)


def next_command(run: Run, workdir: Path) -> str:
    """Returns the command that masks other photographs, or "" if the run has no such network."""
    if not any(stage.type == "predict" and stage.finished for stage in run.stages):
        return ""
    folder = shlex.quote(str(workdir))
    return f"python -m wsss_jax.predict --workdir {folder} PHOTOS --out RESULT"
