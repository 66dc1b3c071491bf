"""Bar charts of means, with their standard deviations and all single values."""

import dataclasses
from collections.abc import Sequence

from wsss_jax.viz.sheet import Pixels, Sheet
from wsss_jax.viz.style import CARD, INK, LETTER, SOFT, SUNK, TEXT, line_style

_ROW, _GROUP = 34, 22  # heights of a bar's row and of a group's heading, in pixels
_SCORES = 118  # width of the column of scores to the right of the bars, in pixels


@dataclasses.dataclass(frozen=True)
class Bar:
    """A mean, its standard deviation (None if it is unknown) and the values behind both."""

    name: str
    text: str
    shade: int
    mean: float
    std: float | None
    values: Sequence[float]


@dataclasses.dataclass(frozen=True)
class BarChart:
    """Horizontal bars from 0 to `highest`, in groups; a group may have an empty heading."""

    title: str
    groups: Sequence[tuple[str, Sequence[Bar]]]
    highest: float

    @property
    def height(self) -> int:
        """The height that the bars need, in pixels."""
        headings = sum(_GROUP for heading, _ in self.groups if heading)
        return max(_ROW, headings + _ROW * sum(len(bars) for _, bars in self.groups))

    def summary(self) -> str:
        """Describes the chart in words, for readers who cannot see it."""
        told = [
            f"{heading} {bar.name} {bar.text}".strip()
            for heading, bars in self.groups
            for bar in bars
        ]
        return f"{self.title}: {', '.join(told)}."


def draw_bars(sheet: Sheet, chart: BarChart, left: Pixels, top: Pixels, width: Pixels) -> None:
    """Draws a bar for each mean, a whisker for its standard deviation and a dot for each value."""
    longest = max((len(bar.name) for _, bars in chart.groups for bar in bars), default=0)
    names = min(LETTER * TEXT * longest + 20, 0.4 * width)
    most = int(names / (LETTER * TEXT))
    room = width - names - _SCORES
    axes = sheet.axes(left + names, top, room, chart.height)
    axes.set_axis_off()
    axes.set_xlim(0, chart.highest * 1.05)
    axes.set_ylim(chart.height, 0)
    line = 0.0
    for heading, bars in chart.groups:
        if heading:
            sheet.text(left + names, top + line + 15, heading, TEXT, SOFT)
            line += _GROUP
        for bar in bars:
            middle, (color, _) = line + _ROW / 2, line_style(bar.shade)
            axes.barh(middle, chart.highest * 1.05, 22, color=SUNK, lw=0, clip_on=False)
            axes.barh(middle, bar.mean, 22, color=color, alpha=0.35, lw=0, clip_on=False)
            if bar.std is not None:
                ends = [max(bar.mean - bar.std, 0.0), bar.mean + bar.std]
                axes.plot(ends, [middle, middle], color=color, lw=2.5, clip_on=False)
            dots = [middle] * len(bar.values)
            axes.plot(bar.values, dots, "o", color=color, ms=8, mec=CARD, mew=1, clip_on=False)
            name = bar.name if len(bar.name) <= most else bar.name[: most - 1] + "…"
            sheet.text(left, top + middle + 5, name, TEXT, INK)
            sheet.text(left + names + room + 14, top + middle + 5, bar.text, TEXT, INK, bold=True)
            line += _ROW
