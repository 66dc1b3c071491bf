"""The charts of a comparison: threshold curves, and the scores of every seed."""

from collections.abc import Sequence

from wsss_jax.comparison import table
from wsss_jax.comparison.trials import SPLITS, Comparison
from wsss_jax.report import wording
from wsss_jax.report.charts import miou_chart
from wsss_jax.viz.bar_chart import Bar, BarChart
from wsss_jax.viz.line_chart import LineChart


def scored_splits(comparison: Comparison) -> list[str]:
    """Returns the splits that have scores."""
    return [s for s in SPLITS if any(e.score(s) for e in comparison.entries)]


def threshold_chart(comparison: Comparison, split: str) -> LineChart | None:
    """Draws the mean mIoU of the seeds by threshold for all recipes, or None without maps."""
    found = [(place, e, e.curve(split)) for place, e in enumerate(comparison.entries, 1)]
    curves = [(e.label, place, *curve) for place, e, curve in found if curve is not None]
    bounds = [(e.label, e.score(split)) for e in comparison.entries if e.supervised]
    told = [f"{label} from true masks: {wording.percent(s.mean)}." for label, s in bounds if s]
    return miou_chart(f"mIoU on {split} by threshold", curves, " ".join(told))


def score_chart(comparison: Comparison, splits: Sequence[str]) -> BarChart:
    """Draws mean, standard deviation and every seed of all recipes, with a group per split."""
    groups = []
    for split in splits:
        bars = []
        for place, entry in enumerate(comparison.entries, 1):
            spread = entry.score(split)
            if spread is not None:
                mark = " ▲" if comparison.better(entry, split) else ""
                text = table.plus_minus(spread) + mark
                bars.append(Bar(entry.label, text, place, spread.mean, spread.std, spread.values))
        groups.append((split if len(splits) > 1 else "", bars))
    title = "mIoU" if len(splits) > 1 else f"mIoU on {' and '.join(splits)}"
    scores = (e.score(s) for e in comparison.entries for s in SPLITS)
    highest = max((value for spread in scores if spread for value in spread.values), default=1.0)
    return BarChart(title, groups, max(highest, 0.01))
