"""The comparison in a single picture, for a README or a slide."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from wsss_jax.comparison.page import lede, title
from wsss_jax.comparison.table import plus_minus
from wsss_jax.comparison.trials import SPLITS, Comparison, Entry
from wsss_jax.report import wording
from wsss_jax.report.cards import (
    CARD,
    INK,
    LINE,
    LINES,
    NIGHT,
    PALER,
    PAPER,
    SOFT,
    STYLES,
    chart_card,
    finish_axes,
)
from wsss_jax.report.gallery import Sample
from wsss_jax.report.sheet import Pixels, Sheet
from wsss_jax.viz.labelled import FONT
from wsss_jax.viz.overlay import HEAT_COLOURS

_WIDTH, _MARGIN, _GAP = 1600, 48, 32  # pixels, as all lengths here
_HEADER, _TILE_GAP = 160, 10
_MOST_TILE = 300


def draw_picture(comparison: Comparison, samples: Sequence[Sample]) -> bytes:
    """A PNG 1600 pixels wide: scores with every seed, threshold curves, one image of each group.

    Args:
      comparison: what was found; at least one entry.
      samples: the gallery; may be empty.
    """
    groups = dict.fromkeys(sample.group for sample in samples)
    rows = [next(s for s in samples if s.group == group) for group in groups]
    columns = max((len(sample.views) for sample in rows), default=1)
    tile = (_WIDTH - 2 * _MARGIN - _TILE_GAP * (columns - 1)) / columns
    heights = [_tile_height(sample, tile) + 34 for sample in rows]
    splits = [s for s in SPLITS if any(e.score(s) for e in comparison.entries)]
    charts = 130 + 34 * len(comparison.entries) * len(splits) + 16 * len(splits)
    charts = max(charts, 380)
    below = sum(heights) + _GAP if rows else 0
    sheet = Sheet(_WIDTH, round(_HEADER + 2 * _GAP + charts + below), PAPER)
    _header(sheet, comparison)
    top, curves = _HEADER + _GAP, _curves(comparison)
    half = (_WIDTH - 2 * _MARGIN - _GAP) / 2
    wide = half if curves else _WIDTH - 2 * _MARGIN
    _bars(sheet, comparison, splits, top, wide, charts)
    if curves:
        split, shown = curves
        left = _MARGIN + half + _GAP
        heading = f"mIoU on {split} by threshold"
        _curve_chart(chart_card(sheet, left, top, half, charts, heading), split, shown)
    top += charts + _GAP
    for sample, height in zip(rows, heights, strict=True):
        for place, view in enumerate(sample.views):
            left = _MARGIN + place * (tile + _TILE_GAP)
            name = f"{view.title} ({sample.group})" if place == 0 else view.title
            sheet.text(left, top + 12, wording.shortened(name, int(tile / 8)), 13.5, SOFT)
            # As wide as it is drawn, so that it begins below its name.
            wide = min(tile, (height - 34) * view.picture.shape[1] / view.picture.shape[0])
            sheet.picture(view.picture, left, top + 20, wide, height - 34)
        top += height
    return sheet.png()


def _tile_height(sample: Sample, width: Pixels) -> Pixels:
    height, across = sample.views[0].picture.shape[:2]
    return min(width * min(max(height / across, 0.5), 1.4), _MOST_TILE)


def _header(sheet: Sheet, comparison: Comparison) -> None:
    sheet.fill(0, 0, _WIDTH, _HEADER, NIGHT)
    sheet.picture(HEAT_COLOURS[None], 0, _HEADER - 6, _WIDTH, 6, stretch=True)
    right = sheet.text(_MARGIN, 80, title(comparison), 42, "#ffffff", bold=True)
    data = comparison.entries[0].trials[0].run.data_name
    sheet.text(right + 14, 80, f"on {data}", 42, "#a9a3c6")
    sheet.text(_MARGIN, 120, lede(comparison), 18, PALER)


def _bars(
    sheet: Sheet,
    comparison: Comparison,
    splits: Sequence[str],
    top: Pixels,
    width: Pixels,
    height: Pixels,
) -> None:
    """Bars of the means, with whiskers of the standard deviation and a dot for each seed."""
    sheet.card(_MARGIN, top, width, height, CARD, LINE)
    sheet.text(_MARGIN + 22, top + 36, "mIoU", 18, INK, bold=True)
    axes = sheet.axes(_MARGIN + 170, top + 52, width - 300, height - 70)
    axes.set_facecolor("none")
    axes.set_axis_off()
    values = [e.score(s) for e in comparison.entries for s in splits]
    highest = max(max(v.values) for v in values if v is not None) or 1.0
    axes.set_xlim(0, highest * 1.05)
    line = 0.0
    for split in splits:
        axes.text(0, line, split, fontsize=10, color=SOFT, fontfamily=FONT, va="center")
        line += 0.75
        for place, entry in enumerate(comparison.entries):
            spread, colour = entry.score(split), LINES[place % len(LINES)]
            if spread is None:
                continue
            axes.barh(line, spread.mean, 0.62, color=colour, alpha=0.32, lw=0)
            if spread.std is not None:
                ends = [spread.mean - spread.std, spread.mean + spread.std]
                axes.plot(ends, [line, line], color=colour, lw=2)
            axes.plot(spread.values, [line] * len(spread.values), "o", color=colour, ms=5.5)
            _beside(
                axes,
                line,
                wording.shortened(entry.label, 17),
                plus_minus(spread),
                comparison.better(entry, split),
            )
            line += 1.0
        line += 0.25
    axes.set_ylim(line - 0.5, -0.5)


def _beside(axes: Axes, line: float, name: str, score: str, better: bool) -> None:
    """The name before the bars and the score behind them."""
    for x, text, side, weight in ((-0.02, name, "right", "normal"), (1.02, score, "left", "bold")):
        axes.text(
            x,
            line,
            text + (" ▲" if better and side == "left" else ""),
            transform=axes.get_yaxis_transform(),
            ha=side,
            va="center",
            fontsize=10.5,
            color=INK,
            fontweight=weight,
            fontfamily=FONT,
            parse_math=False,
        )


def _curves(comparison: Comparison) -> tuple[str, list[tuple[int, Entry]]] | None:
    """The first split with threshold curves, and place and entry of those that have one."""
    for split in SPLITS:
        found = [(n, e) for n, e in enumerate(comparison.entries) if e.curve(split) is not None]
        if found:
            return split, found
    return None


def _curve_chart(axes: Axes, split: str, shown: Sequence[tuple[int, Entry]]) -> None:
    for place, entry in shown:
        curve = entry.curve(split)
        assert curve is not None
        thresholds, scores = curve[0], 100 * np.asarray(curve[1])
        best, colour = int(np.argmax(scores)), LINES[place % len(LINES)]
        label = f"{entry.label}: best {wording.percent(curve[1][best])} at {thresholds[best]:.2f}"
        style = STYLES[place % len(STYLES)]
        axes.plot(thresholds, scores, color=colour, ls=style, lw=2.2, label=label)
        axes.plot(thresholds[best], scores[best], "o", color=colour, ms=7, mec=CARD, mew=1.2)
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
    finish_axes(axes, "background threshold", "lower center")
