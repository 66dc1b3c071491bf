"""Bars of means, on pages and in pictures."""

import re

import pytest

from tests.toys.made_up_run import Page
from wsss_jax.viz.bar_chart import Bar, BarChart, draw_bars
from wsss_jax.viz.sheet import Sheet


def test_bars_end_at_their_means():
    bars = [
        Bar("short", "25.0", 1, 0.25, None, [0.25]),
        Bar("n" * 80, "50.0 ± 2.0", 2, 0.5, 0.02, [0.48, 0.52]),
    ]
    drawn = BarChart("mIoU", [("train", bars), ("", bars[:1])], 0.5)
    sheet = Sheet(560, drawn.height)
    draw_bars(sheet, drawn, 0, 0, 560)
    svg = sheet.svg("bars")
    page = Page(svg)
    assert page.open == [] and svg.count("<use") == 4
    assert {"train", "short", "25.0", "50.0 ± 2.0"} <= set(page.text)
    (long,) = [text for text in page.text if text.startswith("nnn")]
    assert long.endswith("…") and len(long) < 30

    def ends(color: str) -> tuple[float, float]:
        styles = [(str(a.get("style")), str(a["d"])) for a in page.named("path")]
        outline = next(d for style, d in styles if f"fill:{color}" in style and "opacity" in style)
        places = [float(x) for x in re.findall(r"[ML] ([\d.]+) ", outline)]
        return min(places), max(places)

    (start, half), (same, whole) = ends("var(--s1)"), ends("var(--s2)")
    assert start == same and whole - start == pytest.approx(2 * (half - start), abs=0.3)
    assert "train n" in drawn.summary() and "50.0 ± 2.0" in drawn.summary()
