"""The comparison as a self-contained page."""

from collections.abc import Mapping, Sequence
from typing import Any

from wsss_jax.comparison import table
from wsss_jax.comparison.charts import score_chart, scored_splits, threshold_chart
from wsss_jax.comparison.trials import SPLITS, Comparison, Entry
from wsss_jax.files import flatten
from wsss_jax.report import wording
from wsss_jax.report.gallery import GROUPS, Sample
from wsss_jax.report.page import Fold, fold, page_colors
from wsss_jax.report.render import bar_figure, line_figure, render


def build_page(
    comparison: Comparison,
    samples: Sequence[Sample],
    split: str,
    classes: Sequence[str],
    provenance: Mapping[str, str],
    no_pictures: str = "",
) -> str:
    """Returns the whole page as text, below 4 MB.

    Args:
      comparison: the comparison, with at least one entry.
      samples: the images of the gallery, which can be empty.
      split: the split of the gallery.
      classes: the names of the foreground classes in the order of their indices.
      provenance: names and values for the bottom of the page.
      no_pictures: a sentence that says why the gallery is empty.
    """
    curves = [(s, chart) for s in SPLITS if (chart := threshold_chart(comparison, s)) is not None]
    scored = scored_splits(comparison)
    return render(
        "wsss_jax.comparison",
        "comparison.html.jinja",
        comparison=comparison,
        table=table,
        chains=table.chains(comparison),
        splits=SPLITS,
        data_name=comparison.entries[0].trials[0].run.data_name,
        heading=title(comparison),
        lede=lede(comparison),
        headlines=_headlines(comparison, scored[0] if scored else SPLITS[0]),
        samples=samples,
        groups=GROUPS,
        shown_split=split,
        no_pictures=no_pictures,
        colors=page_colors(classes),
        thresholds=[line_figure(chart, f"threshold-{s}") for s, chart in curves],
        scores=[bar_figure(score_chart(comparison, [s]), f"scores-{s}") for s in scored],
        folds=_folds(comparison),
        provenance=provenance,
    )


def title(comparison: Comparison) -> str:
    """Returns ``CAM, SSENet and SEAM``, or the number of methods if there are more than three."""
    rivals = [entry for entry in comparison.entries if not entry.supervised] or comparison.entries
    names = [entry.label for entry in rivals]
    if len(names) > 3:
        methods = {entry.trials[0].run.method for entry in rivals}
        return f"{len(names)} {'methods' if len(methods) == len(names) else 'recipes'}"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def lede(comparison: Comparison) -> str:
    """Returns a sentence about what all recipes share."""
    backbones = dict.fromkeys(e.trials[0].run.backbone for e in comparison.entries)
    same = f", the same backbone ({wording.backbone_name(next(iter(backbones)))})"
    counts = sorted({len(entry.trials) for entry in comparison.entries})
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else ""
    seeds = seeds or wording.count(counts[0], "seed")
    return f"The same data{same if len(backbones) == 1 else ''} and evaluation, {seeds} each."


def _headlines(comparison: Comparison, split: str) -> list[wording.Headline]:
    return [_headline(comparison, entry, split) for entry in comparison.entries]


def _headline(comparison: Comparison, entry: Entry, split: str) -> wording.Headline:
    spread = entry.score(split)
    gain = comparison.gain(entry, split)
    note = f"mIoU on {split}"
    if entry.supervised:
        note = f"on {split}, learned from true masks"
    elif gain is not None:
        note = f"{table.signed(gain)} on {split}"
        note += ", more than the spread" if comparison.better(entry, split) else ""
    elif entry.recipe == comparison.baseline:
        note += ", the baseline"
    return wording.Headline(
        label=entry.label,
        value=wording.percent(None if spread is None else spread.mean),
        unit="" if spread is None else table.deviation(spread),
        note=note,
        score=None if spread is None else spread.mean,
    )


def _folds(comparison: Comparison) -> list[Fold]:
    """Returns the values of the baseline and those in which the other recipes differ from it."""
    values = {entry.recipe: _values(entry) for entry in comparison.entries}
    first = values.get(comparison.baseline)
    folds = []
    for recipe, own in values.items():
        if first is None or own is first:
            folds.append(fold(recipe, "every value", own))
            continue
        changed = {
            key: own.get(key, "(not set)")
            for key in sorted(own.keys() | first.keys())
            if own.get(key) != first.get(key)
        }
        folds.append(fold(recipe, f"what differs from {comparison.baseline}", changed))
    return folds


def _values(entry: Entry) -> dict[str, Any]:
    """Returns the values of the stages that are compared, by their full names."""
    trial = entry.trials[0]
    names = {e.stage.name for e in trial.scored.values()}
    names |= {stage.name for e in trial.scored.values() for stage in e.chain}
    sections = {stage.name: stage.section for stage in trial.run.stages if stage.name in names}
    return dict(flatten({"data": trial.run.data, **sections}))
