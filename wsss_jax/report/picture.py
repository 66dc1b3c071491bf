"""Draws the run as a single picture, for a README or a slide."""

import textwrap
from collections.abc import Sequence

import numpy as np

from wsss_jax.report import wording
from wsss_jax.report.charts import loss_overview, miou_overview
from wsss_jax.report.collect import Run
from wsss_jax.report.gallery import Sample
from wsss_jax.viz.colors import class_colors
from wsss_jax.viz.fonts import readable
from wsss_jax.viz.line_chart import LineChart, draw_lines
from wsss_jax.viz.overlay import HEAT_COLORS
from wsss_jax.viz.sheet import Pixels, Sheet
from wsss_jax.viz.style import CARD, INK, LINE, NIGHT, PALE, PALER, PAPER, SOFT

WIDTH, MARGIN = 1600, 48  # pixels, as all lengths here
_GAP, _HEADER = 40, 300
_LEAST_BODY, _MOST_BODY = 600, 1100
_LINE, _LETTERS, _MOST_LINES = 24, 175, 8  # of warnings
_CHARTS, _WORDS, _TILE_GAP = 460, 150, 12  # widths: column of charts, words beside pictures


def draw_picture(run: Run, samples: Sequence[Sample], classes: Sequence[str]) -> bytes:
    """Returns a PNG 1600 pixels wide with headline figures, curves and an image of each group.

    Args:
      run: the results of the stages; curves that were not recorded are left out.
      samples: the images of the gallery, which can be empty.
      classes: the names of the foreground classes in the order of their indices.
    """
    found = miou_overview(run.evaluations), loss_overview(run.trainings)
    charts = [chart for chart in found if chart is not None]
    rows = _picked(samples)
    left = MARGIN + (_CHARTS + _GAP if charts else 0)
    heights = _row_heights(rows, left)
    wanted = sum(heights) + _TILE_GAP * (len(heights) - 1) + 30
    warnings = _warnings(run)
    top = _HEADER + _GAP + (_LINE * len(warnings) + _GAP // 2 if warnings else 0)
    body = round(min(max(wanted, _LEAST_BODY), _MOST_BODY)) if charts or rows else 120
    sheet = Sheet(WIDTH, top + _GAP + body, PAPER)
    _draw_figures(sheet, run)
    for number, line in enumerate(warnings, 1):
        sheet.text(MARGIN, _HEADER + _GAP // 2 + _LINE * number, line, 15, INK)
    width = _CHARTS if rows else WIDTH - 2 * MARGIN
    height = (body - _GAP / 2 * (len(charts) - 1)) / max(len(charts), 1)
    for place, chart in enumerate(charts):
        draw_chart(sheet, chart, MARGIN, top + place * (height + _GAP / 2), width, height)
    if rows:
        room = body - 30 - _TILE_GAP * (len(rows) - 1)
        heights = [height * room / sum(heights) for height in heights]
        _draw_gallery(sheet, rows, heights, left, top, class_colors(len(classes)))
    if not rows and not charts:
        sheet.text(MARGIN, top + 60, "No curves or pictures to show yet.", 24, SOFT)
    return sheet.png()


def draw_header(sheet: Sheet, height: Pixels, title: str, data: str, line: str) -> None:
    """Draws the dark band at the top with the title, the data and a line about them."""
    sheet.fill(0, 0, WIDTH, height, NIGHT)
    sheet.picture(HEAT_COLORS[None], 0, height - 6, WIDTH, 6, stretch=True)
    right = sheet.text(MARGIN, 86, title, 48, "#ffffff", bold=True)
    sheet.text(right + 14, 86, f"on {data}", 48, "#a9a3c6")
    sheet.text(MARGIN, 124, line, 18, PALER)


def draw_card(
    sheet: Sheet, title: str, left: Pixels, top: Pixels, width: Pixels, height: Pixels
) -> None:
    """Draws an empty card with a title; a chart has its place 50 pixels from the top."""
    sheet.card(left, top, width, height, CARD, LINE)
    sheet.text(left + 22, top + 34, title, 18, INK, bold=True)


def draw_chart(
    sheet: Sheet, chart: LineChart, left: Pixels, top: Pixels, width: Pixels, height: Pixels
) -> None:
    """Draws a chart on a card."""
    draw_card(sheet, chart.title, left, top, width, height)
    draw_lines(sheet, chart.thinned(), left + 18, top + 50, width - 32, height - 60)


def _picked(samples: Sequence[Sample]) -> list[Sample]:
    """Returns the first sample of each group, or three samples if there are no groups."""
    groups = dict.fromkeys(sample.group for sample in samples)
    if len(groups) == 1:
        return list(samples[:3])
    return [next(s for s in samples if s.group == group) for group in groups]


def _tile_width(rows: Sequence[Sample], left: Pixels) -> float:
    columns = max(len(sample.views) for sample in rows)
    return (WIDTH - MARGIN - left - _WORDS - _TILE_GAP * columns) / columns


def _row_heights(rows: Sequence[Sample], left: Pixels) -> list[float]:
    """Returns the heights at which the pictures fill their columns."""
    return [_tile_width(rows, left) / sample.shape for sample in rows]


def _draw_figures(sheet: Sheet, run: Run) -> None:
    backbone = wording.backbone_name(run.backbone)
    line = "Pixel masks from image-level labels" + (f", with {backbone}" if backbone else "")
    draw_header(sheet, _HEADER, wording.title(run), run.data_name, f"{line}  ·  {run.name}")
    figures = wording.headlines(run)
    column = (WIDTH - 2 * MARGIN) / max(len(figures), 4)
    for place, item in enumerate(figures):
        left = MARGIN + place * column
        sheet.text(left, 180, item.label, 16, PALE)
        right = sheet.text(left, 226, item.value, 44, "#ffffff", bold=True)
        sheet.text(right + 8, 226, item.unit, 17, PALE)
        for number, remark in enumerate(item.note.split("; ")):
            shown = wording.shortened(remark, int(column / 7.2))
            sheet.text(left, 252 + 20 * number, shown, 13, PALE)


def _warnings(run: Run) -> list[str]:
    """Returns the warnings of the stages in lines that fit; the page has all of them."""
    every = [
        line
        for stage, warning in run.warnings
        for line in textwrap.wrap(f"Warning of {stage}: {warning}", _LETTERS)
    ]
    more = ["… The page has all warnings."] if len(every) > _MOST_LINES else []
    return every[: _MOST_LINES - len(more)] + more


def _draw_gallery(
    sheet: Sheet,
    rows: Sequence[Sample],
    heights: Sequence[Pixels],
    left: Pixels,
    top: Pixels,
    colors: np.ndarray,
) -> None:
    width = _tile_width(rows, left)
    places = [left + _WORDS + _TILE_GAP + n * (width + _TILE_GAP) for n in range(8)]
    for view, place in zip(max((s.views for s in rows), key=len), places, strict=False):
        sheet.text(place, top + 12, view.title, 15, SOFT)
    top += 30
    for sample, height in zip(rows, heights, strict=True):
        _draw_words(sheet, sample, left, top, height, colors)
        for view, place in zip(sample.views, places, strict=False):
            sheet.picture(view.picture, place, top, width, height)
        top += height + _TILE_GAP


def _draw_words(
    sheet: Sheet, sample: Sample, left: Pixels, top: Pixels, height: Pixels, colors: np.ndarray
) -> None:
    base = top + 16
    if sample.group != "sample":
        sheet.text(left, base, sample.group.capitalize(), 18, INK, bold=True)
        base += 38
    if sample.miou is not None:
        right = sheet.text(left, base, wording.percent(sample.miou), 32, INK, bold=True)
        sheet.text(right + 6, base, "mIoU", 14, SOFT)
    for tag in sample.tags:
        base += 25
        if base > top + height:  # The image has many classes; the page shows all.
            break
        color = "#" + bytes(colors[tag.index]).hex()
        sheet.text(left, base, "●", 15, color)
        iou = "" if tag.iou is None else f"  {wording.percent(tag.iou)}"
        sheet.text(
            left + 18, base, wording.shortened(readable(tag.name, tag.index), 12) + iou, 14.5, SOFT
        )
