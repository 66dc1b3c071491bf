"""Line charts, drawn by the same function for HTML pages and for pictures."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from wsss_jax.viz.sheet import Pixels, Sheet
from wsss_jax.viz.style import CARD, FONT, INK, LETTER, LINE, SOFT, SUNK, TEXT, line_style

_LEFT, _RIGHT, _BELOW = 52, 12, 48  # margins around the plot for its labels, in pixels
_LEGEND_ROW = 24
_MOST_POINTS = 300
_ROUND = (1, 2, 2.5, 5, 10)  # distances between ticks, up to a power of ten

Number = int | float  # JSON has both


@dataclasses.dataclass(frozen=True)
class Series:
    """A line with a value `y` for each x of the chart, or None where there is no value.

    `shade`, from 1 on, chooses color and dashes (see `line_style`). A `faint` line is thin and has
    no name of its own. A `joined` line bridges missing values. `legend` replaces the name in the
    legend if it is given.
    """

    name: str
    y: Sequence[Number | None]
    shade: int
    faint: bool = False
    joined: bool = False
    legend: str = ""


@dataclasses.dataclass(frozen=True)
class Mark:
    """A point of interest: a dot at `y`, or a vertical line if `y` is None, with optional text."""

    x: Number
    y: Number | None
    text: str = ""
    shade: int = 1


@dataclasses.dataclass(frozen=True)
class LineChart:
    """Lines over a common `x`.

    `log` asks for a logarithmic y axis, which is ignored if some value is not positive. `zero` asks
    for a y axis that starts at 0. `note` is a sentence beneath the title.
    """

    title: str
    x: Sequence[Number]
    series: Sequence[Series]
    x_name: str
    note: str = ""
    marks: Sequence[Mark] = ()
    log: bool = False
    zero: bool = False

    def thinned(self) -> "LineChart":
        """Returns the chart with at most a few hundred points, by averaging parts of series."""
        size = math.ceil(len(self.x) / _MOST_POINTS)
        starts = range(0, len(self.x), size)

        def means(values: Sequence[Number | None]) -> list[Number | None]:
            parts = [[v for v in values[i : i + size] if v is not None] for i in starts]
            return [math.fsum(part) / len(part) if part else None for part in parts]

        x = [self.x[min(i + size, len(self.x)) - 1] for i in starts]
        series = [dataclasses.replace(s, y=means(s.y)) for s in self.series]
        return dataclasses.replace(self, x=x, series=series)

    def summary(self) -> str:
        """Describes the chart in words, for readers who cannot see it."""
        parts = [f"{self.title}, {self.x_name} {number(self.x[0])} to {number(self.x[-1])}."]
        for s in self.series:
            known = [v for v in s.y if v is not None]
            if known and not s.faint:
                parts.append(
                    f"{s.name}: from {number(known[0])} to {number(known[-1])},"
                    f" lowest {number(min(known))}, highest {number(max(known))}."
                )
        return " ".join([*parts, *(f"{mark.text}." for mark in self.marks if mark.text)])


def number(value: Number) -> str:
    """Formats a number with three or four significant digits, and if possible without exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.1e}"


def smooth(values: Sequence[Number | None]) -> list[Number | None]:
    """Averages each value over a window of one thirtieth of the series, cut off at the ends.

    The window is centered, so that a falling curve is not drawn too late. None stays None.
    """
    half = len(values) // 60
    found: list[Number | None] = []
    for place, value in enumerate(values):
        window = values[max(0, place - half) : place + half + 1]
        near = [v for v in window if v is not None]
        found.append(None if value is None else math.fsum(near) / len(near))
    return found


def draw_lines(
    sheet: Sheet, chart: LineChart, left: Pixels, top: Pixels, width: Pixels, height: Pixels
) -> Axes:
    """Draws the legend, lines and marks of a chart into a rectangle and returns the axes."""
    named = [s for s in chart.series if not s.faint]
    alone = len(chart.x) == 1
    if alone:  # A single dot says little, so the legend tells its value.
        named = [_told(s) for s in named]
    keyed = len(named) > 1 or alone
    legend = _draw_legend(sheet, named, left + 4, top, left + width) if keyed else 0
    top, height = top + legend, height - legend
    axes = sheet.axes(left + _LEFT, top + 8, width - _LEFT - _RIGHT, height - 8 - _BELOW)
    _set_scales(axes, chart)
    for s in chart.series:
        _draw_series(axes, chart.x, s, dashed=len(named) > 1, dot=10 if alone else 6)
    for mark in chart.marks:
        _draw_mark(axes, mark)
    return axes


def _told(series: Series) -> Series:
    """Returns a series of one value, which its legend tells."""
    value = series.y[0]
    text = series.legend or (series.name if value is None else f"{series.name} {number(value)}")
    return dataclasses.replace(series, legend=text)


def _draw_legend(
    sheet: Sheet, series: Sequence[Series], left: Pixels, top: Pixels, right: Pixels
) -> Pixels:
    """Draws the names of the lines in as many rows as they need and returns their height."""
    at, base = left, top + 15
    for s in series:
        text = s.legend or s.name
        if at > left and at + 34 + LETTER * TEXT * len(text) > right:
            at, base = left, base + _LEGEND_ROW
        color, dashes = line_style(s.shade)
        sheet.rule(at, base - 5, 28, 3, color=color, ls=dashes)
        at = sheet.text(at + 34, base, text, TEXT, INK) + 20
    return base - top + 10


def _set_scales(axes: Axes, chart: LineChart) -> None:
    values = [v for s in chart.series for v in s.y if v is not None]
    if chart.log and min(values) > 0:
        axes.set_yscale("log")
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        axes.set_ylim(10.0**low, 10.0 ** max(high, low + 1))
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        ticks = _ticks([0.0, *values] if chart.zero else values)
        axes.set_ylim(ticks[0], ticks[-1])
        axes.set_yticks(ticks)
    first, last = chart.x[0], chart.x[-1]
    axes.set_xlim((first, last) if first < last else (first - 0.5, last + 0.5))
    if first < last:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=_ROUND))
    else:
        axes.set_xticks([first])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(round(float(value), 12))))
    axes.set_facecolor("none")
    axes.grid(axis="y", color=LINE, lw=1, clip_on=False)
    axes.set_axisbelow(True)
    axes.tick_params(
        left=False, bottom=False, pad=9, labelsize=TEXT, labelcolor=SOFT, labelfontfamily=FONT
    )
    axes.spines[:].set_visible(False)
    axes.set_xlabel(chart.x_name, fontsize=TEXT, color=SOFT, loc="right", fontfamily=FONT)


def _ticks(values: Sequence[Number]) -> list[float]:
    """Returns about five round numbers that enclose the values."""
    low, high = min(values), max(values)
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    return [float(tick) for tick in MaxNLocator(5, steps=_ROUND).tick_values(low, high)]


def _draw_series(
    axes: Axes, x: Sequence[Number], series: Series, *, dashed: bool, dot: Number
) -> None:
    y = np.array([math.nan if value is None else value for value in series.y], np.float64)
    if series.joined:
        x = [at for at, value in zip(x, series.y, strict=True) if value is not None]
        y = y[np.isfinite(y)]
    color, dashes = line_style(series.shade)
    known = np.pad(np.isfinite(y), 1)
    # A value without neighbors cannot be a line, so it is drawn as a dot.
    alone = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])
    axes.plot(
        x,
        y,
        color=color,
        ls=dashes if dashed and not series.faint else "-",
        lw=1 if series.faint else 2.6,
        alpha=0.35 if series.faint else None,
        marker="o" if alone.size else None,
        markevery=alone.tolist(),
        ms=dot,
        mew=0,
        clip_on=False,
    )


def _draw_mark(axes: Axes, mark: Mark) -> None:
    color, _ = line_style(mark.shade)
    low, high = axes.get_ylim()
    if mark.y is None:
        axes.plot([mark.x] * 2, [low, high], color=SOFT, lw=1.3, ls=(0, (2, 3)), clip_on=False)
        text, fill, at = INK, SUNK, (mark.x, low)
    else:
        axes.plot(mark.x, mark.y, "o", color=color, ms=10, mec=CARD, mew=2, clip_on=False, zorder=3)
        text, fill, at = CARD, color, (mark.x, mark.y)
    if not mark.text:
        return
    # The text goes above its point, or beneath it near the top, and stays within the plot's sides.
    plot = axes.get_window_extent()
    x, y = axes.transData.transform(at)
    half = 0.5 * LETTER * 13 * len(mark.text) + 8
    shift = min(max(x, plot.x0 + half), plot.x1 - half) - x
    rise = 20 if plot.y1 - y > 30 else -20
    axes.annotate(
        mark.text,
        at,
        xytext=(shift, rise),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=13,
        fontweight="bold",
        fontfamily=FONT,
        color=text,
        bbox={"boxstyle": "round,pad=0.35", "facecolor": fill, "edgecolor": "none"},
        parse_math=False,
        zorder=4,
        annotation_clip=False,
    )
