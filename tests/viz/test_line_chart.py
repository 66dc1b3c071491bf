"""Charts of pages and pictures: what is drawn, where, and as which SVG."""

import importlib.resources
import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.toys.made_up_run import Page
from wsss_jax.viz.line_chart import LineChart, Mark, Series, draw_lines, number, smooth
from wsss_jax.viz.sheet import Sheet
from wsss_jax.viz.style import CARD, INK, LINE, LINES, PAGE_COLORS, SOFT, SUNK, line_style

HOSTILE = "</text><script>alert(1)</script> & $x_1$ \x07 猫 ' \""


def chart(*series: Series, x=(0.0, 1.0, 2.0, 3.0), **more) -> LineChart:
    return LineChart("Loss", x, series, "step", **more)


def draw(drawn: LineChart, name: str = "a") -> tuple[Sheet, str]:
    sheet = Sheet(560, 350)
    draw_lines(sheet, drawn, 0, 0, 560, 350)
    return sheet, sheet.svg(name)


def scales(values: list[float], **more):
    sheet = Sheet(560, 350)
    x = [float(place) for place in range(len(values))]
    axes = draw_lines(sheet, chart(Series("a", values, 1), x=x, **more), 0, 0, 560, 350)
    return axes, [label.get_text() for label in axes.get_yticklabels()]


def test_axes_have_round_ticks_around_the_values():
    axes, labels = scales([0.03, 0.91])
    assert labels == ["0", "0.2", "0.4", "0.6", "0.8", "1"] and axes.get_ylim() == (0.0, 1.0)
    axes, labels = scales([0.003, 3.0], log=True)
    assert axes.get_yscale() == "log" and axes.get_ylim() == pytest.approx((0.001, 10.0))
    assert {"0.001", "0.1", "10"} <= set(labels)
    assert scales([0.0, 3.0], log=True)[0].get_yscale() == "linear", "0 has no logarithm"
    assert scales([40.0, 41.0], zero=True)[0].get_ylim()[0] == 0
    for constant in (0.0, 5.0, -2.0):
        low, high = scales([constant, constant])[0].get_ylim()
        assert low < constant < high


def test_numbers_are_short():
    values = [0, 0.17, 12345.6, 0.0008, 0.00001234, 99.95]
    assert list(map(number, values)) == ["0", "0.17", "12,346", "0.0008", "1.2e-05", "99.95"]


def test_long_series_are_thinned_not_cut():
    steps = [float(step) for step in range(1, 5001)]
    gaps = [None if step < 100 else step for step in steps]
    thin = chart(Series("loss", steps, 1), Series("late", gaps, 2), x=steps).thinned()
    assert 150 < len(thin.x) <= 300 and len(thin.series[0].y) == len(thin.x) == len(
        thin.series[1].y
    )
    assert thin.x[-1] == 5000 and thin.series[0].y[0] == pytest.approx(np.mean(steps[:17]))
    assert thin.series[1].y[0] is None and thin.series[1].y[-1] == thin.series[0].y[-1]
    short = chart(Series("a", [1.0, None, 3.0, 2.0], 1)).thinned()
    assert (short.x, short.series[0].y) == ([0.0, 1.0, 2.0, 3.0], [1.0, None, 3.0, 2.0])


def test_smooth_is_centered_and_skips_gaps():
    line = [float(value) for value in range(120)]
    assert smooth(line)[30:90] == pytest.approx(line[30:90])
    assert smooth([1.0, None, 3.0]) == [1.0, None, 3.0]


def paths(svg: str, color: str = "var(--s1)") -> list[str]:
    """The lines of a color."""
    found = [a for a in Page(svg).named("path") if f"stroke:{color}" in str(a.get("style"))]
    return [str(a["d"]) for a in found]


def test_gaps_break_lines_unless_they_are_joined():
    values = [1.0, 2.0, None, 3.0]
    (broken,) = paths(draw(chart(Series("a", values, 1)))[1])
    assert broken.count("M") == 2 or broken.count("L") == 1
    (joined,) = paths(draw(chart(Series("a", values, 1, joined=True)))[1])
    assert joined.count("M") == 1 and joined.count("L") == 2


def test_a_value_without_neighbors_is_a_dot():
    one = LineChart("Loss", [1.0], [Series("loss", [0.5], 1)], "step")
    svg = draw(one)[1]
    assert svg.count("<use") == 1
    assert [t for t in Page(svg).text if "loss" in t] == ["loss 0.5"], "its value is told"
    assert [t for t in Page(svg).text if t.startswith("0.9") or t.startswith("1.")] == []
    assert "1" in Page(svg).text, "the only tick is its step"
    assert draw(chart(Series("a", [1.0, None, 3.0, 2.0], 1)))[1].count("<use") == 1
    assert "<use" not in draw(chart(Series("a", [1.0, 2.0, 3.0, 2.0], 1)))[1]


def test_lines_differ_in_color_or_dashes():
    styles = [line_style(shade) for shade in range(1, 25)]
    assert [color for color, _ in styles[:12]] == list(LINES) and styles[12][0] == LINES[0]
    assert len(set(styles)) == 24 and len(set(LINES)) == 12, "ten terms of a loss differ in color"
    names = ["one", "two", "three"]
    svg = draw(
        chart(*(Series(name, [1.0, 2.0, 3.0, 1.0 * n], n) for n, name in enumerate(names, 1)))
    )[1]
    assert len(paths(svg)) == 2, "the line and its key in the legend"
    dashes = [
        re.search(r"stroke-dasharray:([\d., ]+)", str(a["style"]))
        for a in Page(svg).named("path")
        if "--s2" in str(a.get("style"))
    ]
    assert len(dashes) == 2 and all(dashes)
    assert [text for text in Page(svg).text if text in names] == names
    assert "one" not in Page(draw(chart(Series("one", [1.0, 2.0, 3.0, 2.0], 1)))[1]).text, (
        "no rival"
    )


def test_a_legend_takes_as_many_rows_as_it_needs():
    series = [
        Series(f"a rather long name of a line, {n}", [1.0, 2.0, 3.0, 2.0], n) for n in range(1, 8)
    ]
    page = Page(draw(chart(*series))[1])
    places = [
        (float(str(a["x"])), float(str(a["y"])))
        for a, text in zip(page.named("text"), page.text, strict=True)
        if text.startswith("a rather")
    ]
    assert len(places) == 7 and len({y for _, y in places}) == 7
    assert max(x for x, _ in places) < 200 and max(y for _, y in places) < 350 / 2


def test_marks_stay_inside_the_plot():
    marks = [Mark(0.0, 1.0, "best 1.0 at 0.00"), Mark(3.0, None, "used 3.00"), Mark(1.0, 2.0)]
    svg = draw(chart(Series("a", [1.0, 2.0, 3.0, 2.0], 1), marks=marks))[1]
    page = Page(svg)
    assert {"best 1.0 at 0.00", "used 3.00"} <= set(page.text) and svg.count("<use") == 2
    for attributes, text in zip(page.named("text"), page.text, strict=True):
        if text.startswith(("best", "used")):
            assert "text-anchor:middle" in str(attributes["style"])
            assert 52 + 4 * len(text) < float(str(attributes["x"])) < 548 - 4 * len(text)


def test_a_mark_on_top_has_its_words_beneath():
    low, high = (
        draw(chart(Series("a", [0.0, 1.0, 2.0, 3.0], 1), marks=[Mark(x, x, "best")]))[1]
        for x in (1.0, 3.0)
    )
    for svg, above in ((low, True), (high, False)):
        page = Page(svg)
        (dot,) = page.named("use")
        words = page.named("text")[page.text.index("best")]
        assert (float(str(words["y"])) < float(str(dot["y"]))) == above
        assert 8 < float(str(words["y"])) < 302


def test_svg_is_made_for_pages():
    drawn = chart(
        Series(HOSTILE, [1.0, 2.0, 3.0, 2.0], 1),
        Series("b", [3.0, 2.0, None, 1.0], 2),
        marks=[Mark(1.0, 2.0, HOSTILE)],
    )
    sheet, svg = draw(drawn)
    assert svg == sheet.svg("a") == draw(drawn)[1], "the same every time"
    page = Page(svg)
    assert page.open == [] and not page.named("script")
    told = HOSTILE.replace("\x07", "")
    assert sum(text.strip() == told.strip() for text in page.text) == 2, "shown as it is"
    assert "://" not in svg and "url(" not in svg and "xmlns" not in svg and "DejaVu" not in svg
    for color in (*LINES, INK, SOFT, LINE, CARD, SUNK):
        assert color not in svg, "the page's colors, which have a dark variant"
    assert "var(--s1)" in svg and "var(--line)" in svg and "var(--soft)" in svg
    ids = [str(a["id"]) for _, a in page.tags if a.get("id")]
    other = [str(a["id"]) for _, a in Page(sheet.svg("b")).tags if a.get("id")]
    assert ids and not set(ids) & set(other), "several charts in a page"
    assert {str(a["href"]).removeprefix("#") for a in page.named("use")} <= set(ids)
    assert len(svg) < 8000


def test_colors_of_charts_are_those_of_the_pages():
    css = importlib.resources.files("wsss_jax.report").joinpath("templates/page.css").read_text()
    for color, name in PAGE_COLORS.items():
        variable = name.removeprefix("var(").removesuffix(")")
        found = re.search(rf"^  {variable}: light-dark\((#\w+), (#\w+)\);", css, re.MULTILINE)
        assert found is not None and found[1] == color != found[2]


def test_a_picture_shows_the_same_chart():
    drawn = chart(Series("a", [1.0, 2.0, 3.0, 2.0], 1), Series("b", [3.0, 2.0, 1.0, 1.0], 2))
    sheet = Sheet(560, 350, "#ffffff")
    axes = draw_lines(sheet, drawn, 0, 0, 560, 350)
    with Image.open(io.BytesIO(sheet.png())) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == (350, 560, 3)
    x, y = axes.transData.transform((2.0, 3.0))
    near = pixels[350 - round(y) : 350 - round(y) + 3, round(x) - 1 : round(x) + 2].reshape(-1, 3)
    assert np.abs(near - [0xB0, 0x2A, 0x5B]).sum(-1).min() < 30, (
        "the peak lies where the scale says"
    )
