"""The parts of the comparison's page: scores, threshold curves, pictures, seeds, settings."""

from collections.abc import Sequence
from typing import Any

from wsss_jax.comparison import table as text
from wsss_jax.comparison.trials import SPLITS, Comparison, Entry, Spread
from wsss_jax.files import flatten
from wsss_jax.report import tables, wording
from wsss_jax.report.charts import Series, line_chart
from wsss_jax.report.encode import Pictures
from wsss_jax.report.gallery import Sample
from wsss_jax.report.markup import Html, element, join
from wsss_jax.report.sections import GROUPS, Section, sample_row

_COLOURS = 6  # lines of a chart the page's style tells apart


def signed(gain: float) -> str:
    """A difference in points: ``+2.1``."""
    return f"{'+' if gain >= 0 else '−'}{abs(100 * gain):.1f}"


def scores(comparison: Comparison) -> Section:
    """The table of scores."""
    head = [("Method", ""), ("Seeds", "num")]
    for split in SPLITS:
        head += [(f"{split} mIoU", "num"), ("precision", "num"), ("recall", "num")]
    head += [("Images seen", "num"), ("Images/s", "num"), ("Peak memory", "num")]
    table = element(
        "table",
        element("thead", element("tr", (tables.head_cell(name, kind) for name, kind in head))),
        element("tbody", (_score_row(comparison, entry) for entry in comparison.entries)),
        class_="scores compared",
    )
    return Section(
        "scores",
        "Scores",
        " ".join(text.remarks(comparison)),
        (tables.scrolling(table, "Scores of every recipe"),),
    )


def _score_row(comparison: Comparison, entry: Entry) -> Html:
    note = "" if entry.label == entry.recipe else entry.recipe
    note += ", true masks" if entry.supervised else ""
    name = element("th", entry.label, element("small", note) if note else None, scope="row")
    cells = [element("td", str(len(entry.trials)), class_="num")]
    for split in SPLITS:
        cells.append(_score_cell(comparison, entry, split))
        cells += [_spread_cell(entry.score(split, key)) for key in ("precision", "recall")]
    rate = entry.spread(lambda trial: trial.images_per_second)
    rest = (
        f"{entry.trials[0].images_seen:,}",
        "–" if rate is None else f"{rate.mean:.1f}",
        text.gibibytes(entry.peak_memory),
    )
    return element("tr", name, cells, (element("td", value, class_="num") for value in rest))


def _score_cell(comparison: Comparison, entry: Entry, split: str) -> Html:
    spread, gain = entry.score(split), comparison.gain(entry, split)
    if spread is None:
        return element("td", "–", class_="num")
    mark = " ▲" if comparison.better(entry, split) else ""
    return element(
        "td",
        element("b", wording.percent(spread.mean)),
        f" {text.deviation(spread)}",
        element("small", signed(gain) + mark) if gain is not None else None,
        class_="num",
    )


def _spread_cell(spread: Spread | None) -> Html:
    if spread is None:
        return element("td", "–", class_="num")
    off = element("small", text.deviation(spread)) if spread.std is not None else None
    return element("td", wording.percent(spread.mean), off, class_="num")


def shade(place: int) -> int:
    """Colour of the entry at `place` in every chart, 1 to 6."""
    return place % _COLOURS + 1


def curves(comparison: Comparison) -> Section | None:
    """mIoU by threshold, all recipes in a chart for each split; None where there are no maps."""
    charts = [chart for split in SPLITS if (chart := _curve_chart(comparison, split)) is not None]
    if not charts:
        return None
    return Section(
        "thresholds",
        "Thresholds",
        "mIoU of the maps by background threshold, the mean over the seeds. Point at a curve, or"
        " focus it and use the arrow keys, to read its values.",
        (element("div", charts, class_="charts"),),
    )


def _curve_chart(comparison: Comparison, split: str) -> Html | None:
    found = [(place, e, e.curve(split)) for place, e in enumerate(comparison.entries)]
    curves = [(place, e, curve) for place, e, curve in found if curve is not None]
    if not curves:
        return None
    # Some versions try more thresholds than others: short lines end early.
    thresholds = max((curve[0] for _, _, curve in curves), key=len)
    series = [
        Series(
            entry.label,
            [100 * value for value in scores] + [None] * (len(thresholds) - len(scores)),
            shade(place),
        )
        for place, entry, (_, scores) in curves
    ]
    note = ""
    for entry in comparison.entries:
        spread = entry.score(split)
        if entry.supervised and spread is not None:
            note = f"{entry.label} from true masks: {wording.percent(spread.mean)}."
    return line_chart(
        f"mIoU on {split}", thresholds, series, x_name="background threshold", note=note, zero=True
    )


def gallery(
    samples: Sequence[Sample],
    split: str,
    colours: Sequence[str],
    pictures: Pictures,
    reason: str,
) -> Section:
    """The samples of `split`, or the `reason` why there are none; `colours` by class index."""
    if not samples:
        return Section("gallery", "Pictures", reason or "There are no maps or masks to show.")
    content = [
        element("p", "weak", element("i", class_="ramp"), "strong activation", class_="scale")
    ]
    for group, (heading, remark) in GROUPS.items():
        rows = [sample_row(s, colours, pictures) for s in samples if s.group == group]
        if rows:
            over = element("h3", heading, element("small", remark))
            content.append(element("div", over, rows, class_="group compared"))
    columns = max(len(sample.views) for sample in samples)
    return Section(
        "gallery",
        "Pictures",
        f"The same images of {split} in every recipe, its first seed; a number is the mIoU of that"
        " image's mask. Images are ordered by the mean over the recipes. Choose a picture to"
        " enlarge it.",
        (element("div", content, style=f"--views:{columns}"),),
    )


def seeds(comparison: Comparison) -> Section:
    """Every run by itself, as dots and as a table."""
    highest = max(
        (t.score(s) or 0.0 for e in comparison.entries for t in e.trials for s in SPLITS),
        default=1.0,
    )
    charts = [
        _bars(comparison, split, max(highest, 0.01))
        for split in SPLITS
        if any(e.score(split) for e in comparison.entries)
    ]
    head = ("Method", "Seed", "train mIoU", "val mIoU", "Threshold", "Images/s", "Memory", "Time")
    rows = [
        _seed_row(entry, number)
        for entry in comparison.entries
        for number in range(len(entry.trials))
    ]
    table = element(
        "table",
        element(
            "thead",
            element("tr", (tables.head_cell(n, "num" if n != "Method" else "") for n in head)),
        ),
        element("tbody", rows),
        class_="seeds",
    )
    return Section(
        "seeds",
        "Seeds",
        "Every run by itself. A dot is a seed, a bar the mean, a whisker the standard deviation.",
        (
            element("div", charts, class_="charts"),
            tables.scrolling(table, "Scores of every seed"),
        ),
    )


def _seed_row(entry: Entry, number: int) -> Html:
    trial = entry.trials[number]
    rate = trial.images_per_second
    values = (
        str(trial.seed),
        *(wording.percent(trial.score(split)) for split in SPLITS),
        text.threshold(trial),
        "–" if rate is None else f"{rate:.1f}",
        text.gibibytes(trial.peak_memory),
        text.time(trial),
    )
    name = element("th", entry.label if number == 0 else "", scope="row")
    return element("tr", name, (element("td", value, class_="num") for value in values))


def _bars(comparison: Comparison, split: str, highest: float) -> Html:
    rows = []
    for place, entry in enumerate(comparison.entries):
        spread = entry.score(split)
        if spread is None:
            continue
        marks = [element("i", class_="mean", style=f"width:{100 * spread.mean / highest:.2f}%")]
        if spread.std is not None:
            low = max(spread.mean - spread.std, 0.0)
            wide = spread.mean + spread.std - low
            place_of = f"left:{100 * low / highest:.2f}%;width:{100 * wide / highest:.2f}%"
            marks.append(element("i", class_="whisker", style=place_of))
        marks += [
            element("i", class_="seed", style=f"left:{100 * value / highest:.2f}%")
            for value in spread.values
        ]
        rows.append(
            element(
                "li",
                element("span", entry.label),
                element("span", marks, class_=f"lane s{shade(place)}", aria_hidden="true"),
                element("b", text.plus_minus(spread)),
            )
        )
    heading = element("figcaption", element("h3", f"mIoU on {split}"))
    return element("figure", heading, element("ul", rows, class_="lanes"), class_="chart")


def settings(comparison: Comparison) -> Section:
    """The values of the baseline, and of the others what differs."""
    values = {entry.recipe: _values(entry) for entry in comparison.entries}
    first = values.get(comparison.baseline)
    folds = []
    for entry in comparison.entries:
        own = values[entry.recipe]
        if first is None or own is first:
            folds.append(tables.fold(entry.recipe, "every value", own))
            continue
        changed: dict[str, Any] = {
            key: own.get(key, "(not set)")
            for key in sorted(own.keys() | first.keys())
            if own.get(key) != first.get(key)
        }
        folds.append(tables.fold(entry.recipe, f"what differs from {comparison.baseline}", changed))
    return Section(
        "settings",
        "Settings",
        "The recipes as they ran, of the stages that are compared.",
        (join(folds),),
    )


def _values(entry: Entry) -> dict[str, Any]:
    trial = entry.trials[0]
    names = {e.stage.name for e in trial.scored.values()}
    names |= {stage.name for e in trial.scored.values() for stage in e.chain}
    sections = {stage.name: stage.section for stage in trial.run.stages if stage.name in names}
    return dict(flatten({"data": trial.run.data, **sections}))
