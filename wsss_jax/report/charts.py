"""Line charts as inline SVG; labels are HTML, so that they keep their size on every screen."""

import dataclasses
import math
from collections.abc import Sequence

from wsss_jax.report.markup import Html, element, join
from wsss_jax.report.wording import number

_WIDTH, _HEIGHT = 1000.0, 400.0  # of the viewBox; stretched to the page, strokes keep their width
_MOST_POINTS = 300

Number = int | float  # JSON gives either


@dataclasses.dataclass(frozen=True)
class Series:
    """A line: `y` runs beside the chart's x, None where there is no value.

    `shade` picks one of the page's six line colours; `faint` draws it as a thin companion.
    """

    name: str
    y: Sequence[Number | None]
    shade: int
    faint: bool = False


@dataclasses.dataclass(frozen=True)
class Mark:
    """A point of interest: a dot at `y`, or a vertical line where `y` is None."""

    x: Number
    y: Number | None
    text: str


@dataclasses.dataclass(frozen=True)
class Axis:
    """From `low` to `high`, linear or logarithmic, with labelled `ticks`."""

    low: Number
    high: Number
    ticks: tuple[Number, ...]
    log: bool = False

    def place(self, value: Number) -> Number:
        """Where `value` lies between the ends, 0…1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def axis(
    values: Sequence[Number], count: int = 5, *, log: bool = False, tight: bool = False
) -> Axis:
    """An axis that holds `values`, with about `count` round ticks.

    `tight` ends it at the values themselves, else at a tick. A logarithmic axis needs positive
    values.
    """
    low, high = min(values), max(values)
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        last = max(last, first + 1)
        every = max(1, math.ceil((last - first) / count))
        ticks = tuple(10.0**power for power in range(first, last + 1, every))
        return Axis(10.0**first, 10.0**last, ticks, log=True)
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    step = _round_step((high - low) / count)
    if not tight:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return Axis(low, high, tuple(round(i * step, 12) for i in range(first, last + 1)))


def _round_step(rough: float) -> Number:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))


def line_chart(
    title: str,
    x: Sequence[Number],
    series: Sequence[Series],
    *,
    x_name: str,
    note: str = "",
    marks: Sequence[Mark] = (),
    log: bool = False,
    zero: bool = False,
) -> Html:
    """A figure with legend, grid, lines and marks; the page's script adds the hover values.

    `log` asks for a logarithmic y axis (ignored when a value is not positive), `zero` for one that
    starts at 0. Long series are averaged down to a few hundred points.
    """
    x, series = _thin(x, series)
    values = [v for s in series for v in s.y if v is not None]
    log = log and min(values) > 0
    across = axis(x, 6, tight=True)
    up = axis([0.0, *values] if zero else values, log=log)
    data = {
        "x": [_short(v) for v in x],
        "s": [
            {"n": s.name, "c": s.shade, "y": [None if v is None else _short(v) for v in s.y]}
            for s in series
            if not s.faint
        ],
        "ax": [across.low, across.high],
        "ay": [up.low, up.high],
        "log": log,
        "u": x_name,
    }
    return element(
        "figure",
        element(
            "figcaption",
            element("h3", title),
            element("p", note, class_="note") if note else None,
            _legend(series),
        ),
        element(
            "div",
            _drawing(across, up, x, series, marks),
            _labels(across, up, x_name),
            _mark_labels(across, up, marks),
            class_="plot",
            tabindex=0,
            role="img",
            aria_label=_summary(title, x_name, x, series, marks),
        ),
        class_="chart",
        data_chart=data,
    )


def smooth(values: Sequence[Number | None]) -> list[Number | None]:
    """Mean over a window of a thirtieth of the series around each value, one-sided at the ends.

    Centred, so that a falling curve is not drawn too late; None stays None.
    """
    half = len(values) // 60
    found: list[Number | None] = []
    for place, value in enumerate(values):
        window = values[max(0, place - half) : place + half + 1]
        near = [v for v in window if v is not None]
        found.append(None if value is None else math.fsum(near) / len(near))
    return found


def _thin(x: Sequence[Number], series: Sequence[Series]) -> tuple[list[Number], list[Series]]:
    size = math.ceil(len(x) / _MOST_POINTS)
    starts = range(0, len(x), size)

    def means(values: Sequence[Number | None]) -> list[Number | None]:
        parts = [[v for v in values[i : i + size] if v is not None] for i in starts]
        return [math.fsum(part) / len(part) if part else None for part in parts]

    thinned = [dataclasses.replace(s, y=means(s.y)) for s in series]
    return [x[min(i + size, len(x)) - 1] for i in starts], thinned


def _drawing(
    across: Axis, up: Axis, x: Sequence[Number], series: Sequence[Series], marks: Sequence[Mark]
) -> Html:
    lines = [element("path", d=f"M0 {_y(up, t)}H{_WIDTH:g}", class_="grid") for t in up.ticks]
    lines += [
        element("path", d=f"M{_x(across, m.x)} 0V{_HEIGHT:g}", class_="rule")
        for m in marks
        if m.y is None
    ]
    several = sum(not s.faint for s in series) > 1
    for s in series:
        # Lines that share a chart differ in dashes as well: for print and colour-blind eyes.
        drawn = "line faint" if s.faint else "line dashed" if several else "line"
        lines.append(element("path", d=_path(across, up, x, s.y), class_=f"{drawn} s{s.shade}"))
    return element(
        "svg",
        join(lines),
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _path(across: Axis, up: Axis, x: Sequence[Number], y: Sequence[Number | None]) -> str:
    points, pen = [], "M"
    for at, value in zip(x, y, strict=True):
        if value is None:
            pen = "M"
            continue
        # A line of no length has round ends: a single value is a dot.
        points.append(f"{pen}{_x(across, at)} {_y(up, value)}{'h0' if pen == 'M' else ''}")
        pen = "L"
    return "".join(points)


def _labels(across: Axis, up: Axis, x_name: str) -> Html:
    ticks = [
        element("span", number(t), class_="ytick", style=f"top:{100 - 100 * up.place(t):.2f}%")
        for t in up.ticks
    ]
    ticks += [
        element("span", number(t), class_="xtick", style=f"left:{100 * across.place(t):.2f}%")
        for t in across.ticks
    ]
    return join([*ticks, element("span", x_name, class_="xname")])


def _mark_labels(across: Axis, up: Axis, marks: Sequence[Mark]) -> Html:
    found = []
    for mark in marks:
        left = 100 * across.place(mark.x)
        top = 100.0 if mark.y is None else 100 - 100 * up.place(mark.y)
        side = "mark left" if left > 60 else "mark"
        found.append(
            element(
                "span",
                element("b", mark.text),
                class_=side if mark.y is not None else f"{side} foot",
                style=f"left:{left:.2f}%;top:{top:.2f}%",
            )
        )
    return join(found)


def _legend(series: Sequence[Series]) -> Html | None:
    shown = [s for s in series if not s.faint]
    if len(shown) < 2:
        return None
    return element(
        "ul",
        (element("li", element("i", class_=f"key s{s.shade}"), s.name) for s in shown),
        class_="legend",
    )


def _summary(
    title: str,
    x_name: str,
    x: Sequence[Number],
    series: Sequence[Series],
    marks: Sequence[Mark],
) -> str:
    parts = [f"{title}, {x_name} {number(x[0])} to {number(x[-1])}."]
    for s in series:
        known = [v for v in s.y if v is not None]
        if known and not s.faint:
            parts.append(
                f"{s.name}: from {number(known[0])} to {number(known[-1])},"
                f" lowest {number(min(known))}, highest {number(max(known))}."
            )
    return " ".join([*parts, *(f"{mark.text}." for mark in marks)])


def _x(across: Axis, value: Number) -> str:
    return f"{_WIDTH * across.place(value):.1f}"


def _y(up: Axis, value: Number) -> str:
    return f"{_HEIGHT * (1 - up.place(value)):.1f}"


def _short(value: Number) -> Number:
    return float(f"{value:.5g}")
