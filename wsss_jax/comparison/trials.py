"""The results of several recipes with several seeds each."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from wsss_jax.report import wording
from wsss_jax.report.collect import Evaluation, Run, Training

SPLITS = ("train", "val")


@dataclasses.dataclass(frozen=True)
class Spread:
    """The mean and sample standard deviation of a figure; `std` is None for a single seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation (n − 1)."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclasses.dataclass(frozen=True)
class Trial:
    """A recipe with one seed.

    `scored` maps train and val to the evaluations that are compared; `memory` is what
    `wsss_jax.pipeline.memory` recorded.
    """

    seed: int
    run: Run
    scored: dict[str, Evaluation]
    memory: dict[str, Any]

    @property
    def trainings(self) -> tuple[Training, ...]:
        """The trainings on which the scores depend."""
        makers = {stage.name for e in self.scored.values() for stage in e.chain}
        return tuple(t for t in self.run.trainings if t.stage.name in makers)

    def score(self, split: str, key: str = "miou") -> float | None:
        """Returns a figure of the evaluation of `split`, or None if there is none."""
        evaluation = self.scored.get(split)
        return None if evaluation is None else _metric(evaluation, key)

    @property
    def seconds(self) -> float | None:
        """The time of all trainings."""
        times = [training.seconds for training in self.trainings]
        return math.fsum(t for t in times if t is not None) if any(times) else None

    @property
    def images_per_second(self) -> float | None:
        """The rate of all trainings together, weighted by their numbers of images."""
        images, seconds = 0.0, 0.0
        for training in self.trainings:
            rate, seen = training.images_per_second, _images_seen(training)
            if not rate or not seen:
                return training.images_per_second if len(self.trainings) == 1 else None
            images, seconds = images + seen, seconds + seen / rate
        return images / seconds if seconds else None

    @property
    def images_seen(self) -> int:
        """The number of images in all steps of all trainings."""
        return sum(_images_seen(training) for training in self.trainings)

    @property
    def peak_memory(self) -> int | None:
        """The peak memory of the device in bytes, or of the process if that is unknown."""
        value = self.memory.get("device") or self.memory.get("process")
        return int(value) if isinstance(value, int | float) else None


def _metric(evaluation: Evaluation, key: str) -> float | None:
    value = evaluation.stage.metrics.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _images_seen(training: Training) -> int:
    steps = training.stage.metrics.get("steps") or 0
    return int(steps) * int(training.stage.section.get("batch_size") or 0)


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of a recipe that is scored on its way: its evaluation, and the mIoU of each seed."""

    evaluation: Evaluation
    miou: Spread


@dataclasses.dataclass(frozen=True)
class Entry:
    """The finished trials of a recipe (at least one), with its label in the comparison."""

    recipe: str
    label: str
    trials: tuple[Trial, ...]

    @property
    def supervised(self) -> bool:
        """Whether a network learned from the true masks, which makes it an upper bound."""
        return any(t.stage.section.get("ground_truth") for t in self.trials[0].trainings)

    def spread(self, figure: Callable[[Trial], float | int | None]) -> Spread | None:
        """Returns a figure over the seeds that have it, or None if none has it."""
        values = [figure(trial) for trial in self.trials]
        known = tuple(float(value) for value in values if value is not None)
        return Spread(known) if known else None

    def score(self, split: str, key: str = "miou") -> Spread | None:
        """Returns a score over the seeds."""
        return self.spread(lambda trial: trial.score(split, key))

    def steps(self) -> tuple[Step, ...]:
        """Returns all that the recipe scores, in order, over the seeds that have finished it."""
        found: dict[str, list[Evaluation]] = {}
        for trial in self.trials:
            for evaluation in trial.run.evaluations:
                found.setdefault(evaluation.stage.name, []).append(evaluation)
        return tuple(
            Step(scored[0], Spread(values))
            for scored in found.values()
            if (values := tuple(v for one in scored if (v := _metric(one, "miou")) is not None))
        )

    def curve(self, split: str) -> tuple[list[float], list[float]] | None:
        """Returns the thresholds and their mean mIoU, or None if masks are scored."""
        found = [t.scored[split].stage.metrics for t in self.trials if split in t.scored]
        curves = [m["miou_curve"] for m in found if m.get("miou_curve")]
        if not curves:
            return None
        shared = min(map(len, curves))  # Some versions try more thresholds than others.
        mean = np.array([curve[:shared] for curve in curves], np.float64).mean(0)
        return list(map(float, found[0]["thresholds"][:shared])), mean.tolist()

    @property
    def images_per_second(self) -> float | None:
        """The mean rate over the seeds."""
        found = self.spread(lambda trial: trial.images_per_second)
        return None if found is None else found.mean

    @property
    def peak_memory(self) -> int | None:
        """The largest peak memory of all seeds."""
        known = [trial.peak_memory for trial in self.trials]
        return max((value for value in known if value is not None), default=None)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The recipes in their order.

    Attributes:
      baseline: the name of the first recipe, which `entries` can lack.
      seeds: the seeds.
      entries: the recipes with results.
      missing: the recipe, seed and reason of each trial without a result.
    """

    baseline: str
    seeds: tuple[int, ...]
    entries: tuple[Entry, ...]
    missing: tuple[tuple[str, int, str], ...] = ()

    def gain(self, entry: Entry, split: str) -> float | None:
        """Returns the entry's mean mIoU minus the baseline's, or None for the baseline itself."""
        pair = self._pair(entry, split)
        return None if pair is None else pair[0].mean - pair[1].mean

    def better(self, entry: Entry, split: str) -> bool:
        """Returns whether this gain exceeds the standard deviations of both.

        It is False for upper bounds, and if either has a single seed.
        """
        pair = self._pair(entry, split)
        if pair is None or entry.supervised or pair[0].std is None or pair[1].std is None:
            return False
        return pair[0].mean - pair[1].mean > max(pair[0].std, pair[1].std)

    def _pair(self, entry: Entry, split: str) -> tuple[Spread, Spread] | None:
        first = next((e for e in self.entries if e.recipe == self.baseline), None)
        if first is None or entry is first:
            return None
        own, other = entry.score(split), first.score(split)
        return None if own is None or other is None else (own, other)


def labels(methods: Mapping[str, str]) -> dict[str, str]:
    """Returns a label for each recipe: the name of its method, if no other recipe has the method.

    `methods` maps recipes to methods, or to "Upper bound" if they learn from the true masks.
    """
    names = {recipe: wording.method_name(method) for recipe, method in methods.items()}
    every = list(names.values())
    return {
        recipe: name if name and every.count(name) == 1 else recipe
        for recipe, name in names.items()
    }
