"""What several recipes came to, with several seeds each."""

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
    """Mean and sample standard deviation of a figure; `std` is None for a single seed."""

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
        """The trainings that what is scored was made by."""
        makers = {stage.name for e in self.scored.values() for stage in e.chain}
        return tuple(t for t in self.run.trainings if t.stage.name in makers)

    def score(self, split: str, key: str = "miou") -> float | None:
        """A figure of the evaluation of `split`; None where there is none."""
        evaluation = self.scored.get(split)
        value = None if evaluation is None else evaluation.stage.metrics.get(key)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    @property
    def seconds(self) -> float | None:
        """Time of all trainings."""
        times = [training.seconds for training in self.trainings]
        return math.fsum(t for t in times if t is not None) if any(times) else None

    @property
    def images_per_second(self) -> float | None:
        """Rate of all trainings together, each with its share of the images."""
        images, seconds = 0.0, 0.0
        for training in self.trainings:
            rate, seen = training.images_per_second, _images_seen(training)
            if not rate or not seen:
                return training.images_per_second if len(self.trainings) == 1 else None
            images, seconds = images + seen, seconds + seen / rate
        return images / seconds if seconds else None

    @property
    def images_seen(self) -> int:
        """Images of all trainings, each as often as it was shown."""
        return sum(_images_seen(training) for training in self.trainings)

    @property
    def peak_memory(self) -> int | None:
        """Bytes of the device, or of the process where the device does not tell."""
        value = self.memory.get("device") or self.memory.get("process")
        return int(value) if isinstance(value, int | float) else None


def _images_seen(training: Training) -> int:
    steps = training.stage.metrics.get("steps") or 0
    return int(steps) * int(training.stage.section.get("batch_size") or 0)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A recipe's finished trials (at least one), `label` its name among the others."""

    recipe: str
    label: str
    trials: tuple[Trial, ...]

    @property
    def supervised(self) -> bool:
        """Whether a network learned from the true masks: an upper bound, not a rival."""
        return any(t.stage.section.get("ground_truth") for t in self.trials[0].trainings)

    def spread(self, figure: Callable[[Trial], float | int | None]) -> Spread | None:
        """A figure over the seeds that have it; None where none has."""
        values = [figure(trial) for trial in self.trials]
        known = tuple(float(value) for value in values if value is not None)
        return Spread(known) if known else None

    def score(self, split: str, key: str = "miou") -> Spread | None:
        """A score over the seeds."""
        return self.spread(lambda trial: trial.score(split, key))

    def curve(self, split: str) -> tuple[list[float], list[float]] | None:
        """Thresholds and the mean mIoU there; None where masks are scored."""
        found = [t.scored[split].stage.metrics for t in self.trials if split in t.scored]
        curves = [m["miou_curve"] for m in found if m.get("miou_curve")]
        if not curves:
            return None
        shared = min(map(len, curves))  # some versions try more thresholds than others
        mean = np.array([curve[:shared] for curve in curves], np.float64).mean(0)
        return list(map(float, found[0]["thresholds"][:shared])), mean.tolist()

    @property
    def images_per_second(self) -> float | None:
        """The mean rate over the seeds."""
        found = self.spread(lambda trial: trial.images_per_second)
        return None if found is None else found.mean

    @property
    def peak_memory(self) -> int | None:
        """Of the seed that took most."""
        known = [trial.peak_memory for trial in self.trials]
        return max((value for value in known if value is not None), default=None)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The recipes in their order, the first of all (`baseline`) maybe missing.

    `missing` are recipe, seed and reason of the trials without a result.
    """

    baseline: str
    seeds: tuple[int, ...]
    entries: tuple[Entry, ...]
    missing: tuple[tuple[str, int, str], ...] = ()

    def gain(self, entry: Entry, split: str) -> float | None:
        """How far the entry's mean mIoU lies above the baseline's; None for the baseline itself."""
        pair = self._pair(entry, split)
        return None if pair is None else pair[0].mean - pair[1].mean

    def better(self, entry: Entry, split: str) -> bool:
        """Whether that is more than a standard deviation: of the entry and of the baseline.

        With a single seed of either nothing is certain; upper bounds are no rivals.
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
    """A name for each recipe: its method's as papers write it, where only one recipe has it.

    `methods` maps recipes to methods, or to "Upper bound" where the true masks are learned from.
    """
    names = {recipe: wording.method_name(method) for recipe, method in methods.items()}
    every = list(names.values())
    return {
        recipe: name if name and every.count(name) == 1 else recipe
        for recipe, name in names.items()
    }
