"""The run in a single picture, for a README or a slide."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from wsss_jax.report import wording
from wsss_jax.report.cards import (
    CARD,
    INK,
    LINES,
    NIGHT,
    PALE,
    PALER,
    PAPER,
    SOFT,
    STYLES,
    chart_card,
    finish_axes,
)
from wsss_jax.report.charts import smooth
from wsss_jax.report.collect import Evaluation, Run, Training
from wsss_jax.report.gallery import Sample
from wsss_jax.report.sheet import Pixels, Sheet
from wsss_jax.viz.colors import class_colours
from wsss_jax.viz.overlay import HEAT_COLOURS

_WIDTH, _MARGIN, _GAP = 1600, 48, 40  # pixels, as all lengths here
_HEADER = 300  # height of the dark band
_LEAST_BODY, _MOST_BODY = 600, 1100
_CHARTS, _WORDS, _TILE_GAP = 460, 150, 12  # widths: column of charts, words beside pictures


def draw_picture(run: Run, samples: Sequence[Sample], classes: Sequence[str]) -> bytes:
    """A PNG 1600 pixels wide: headline figures, curves, one image of each group.

    Args:
      run: what the stages left behind; curves that were not recorded are left out.
      samples: the gallery; may be empty.
      classes: foreground class names in the order of their indices.
    """
    curves = [e for e in run.evaluations if "miou_curve" in e.stage.metrics]
    losses = [t for t in run.trainings if any(row.get("loss") is not None for row in t.rows)]
    charts = bool(curves) + bool(losses)
    rows = _picked(samples)
    left = _MARGIN + (_CHARTS + _GAP if charts else 0)
    heights = _row_heights(rows, left)
    wanted = sum(heights) + _TILE_GAP * (len(heights) - 1) + 30
    body = round(min(max(wanted, _LEAST_BODY), _MOST_BODY)) if charts or rows else 120
    sheet = Sheet(_WIDTH, _HEADER + 2 * _GAP + body, PAPER)
    _header(sheet, run)
    top = _HEADER + _GAP
    width = _CHARTS if rows else _WIDTH - 2 * _MARGIN
    height = (body - _GAP / 2 * (charts - 1)) / max(charts, 1)
    if curves:
        _curve_chart(chart_card(sheet, _MARGIN, top, width, height, "mIoU by threshold"), curves)
        top += height + _GAP / 2
    if losses:
        _loss_chart(chart_card(sheet, _MARGIN, top, width, height, "Training loss"), losses)
    if rows:
        room = body - 30 - _TILE_GAP * (len(rows) - 1)
        heights = [height * room / sum(heights) for height in heights]
        _gallery(sheet, rows, heights, left, class_colours(len(classes)))
    if not rows and not charts:
        sheet.text(_MARGIN, _HEADER + 100, "No curves or pictures to show yet.", 24, SOFT)
    return sheet.png()


def _picked(samples: Sequence[Sample]) -> list[Sample]:
    """The first of each group; three of the list where there are no groups."""
    groups = dict.fromkeys(sample.group for sample in samples)
    if len(groups) == 1:
        return list(samples[:3])
    return [next(s for s in samples if s.group == group) for group in groups]


def _tile_width(rows: Sequence[Sample], left: Pixels) -> float:
    columns = max(len(sample.views) for sample in rows)
    return (_WIDTH - _MARGIN - left - _WORDS - _TILE_GAP * columns) / columns


def _row_heights(rows: Sequence[Sample], left: Pixels) -> list[float]:
    """Heights at which the pictures fill their columns."""
    sizes = [sample.views[0].picture.shape for sample in rows]
    return [_tile_width(rows, left) * min(max(size[0] / size[1], 0.5), 1.6) for size in sizes]


def _header(sheet: Sheet, run: Run) -> None:
    sheet.fill(0, 0, _WIDTH, _HEADER, NIGHT)
    sheet.picture(HEAT_COLOURS[None], 0, _HEADER - 6, _WIDTH, 6, stretch=True)
    right = sheet.text(_MARGIN, 88, wording.title(run), 48, "#ffffff", bold=True)
    sheet.text(right + 14, 88, f"on {run.data_name}", 48, "#a9a3c6")
    backbone = wording.backbone_name(run.backbone)
    line = "Pixel masks from image-level labels" + (f", with {backbone}" if backbone else "")
    sheet.text(_MARGIN, 126, f"{line}  ·  {run.name}", 18, PALER)
    figures = wording.headlines(run)
    column = (_WIDTH - 2 * _MARGIN) / max(len(figures), 4)
    for place, item in enumerate(figures):
        left = _MARGIN + place * column
        sheet.text(left, 180, item.label, 16, PALE)
        right = sheet.text(left, 226, item.value, 44, "#ffffff", bold=True)
        sheet.text(right + 8, 226, item.unit, 17, PALE)
        for number, remark in enumerate(item.note.split("; ")):
            sheet.text(
                left, 252 + 20 * number, wording.shortened(remark, int(column / 7.4)), 13.5, PALE
            )


def _curve_chart(axes: Axes, evaluations: Sequence[Evaluation]) -> None:
    shown = zip(evaluations, LINES, STYLES, strict=False)
    for evaluation, colour, style in shown:
        metrics = evaluation.stage.metrics
        thresholds, scores = metrics["thresholds"], 100 * np.asarray(metrics["miou_curve"], float)
        best = int(np.argmax(scores))
        label = f"{wording.name(evaluation)}: best {scores[best]:.1f} at {thresholds[best]:.2f}"
        axes.plot(thresholds, scores, color=colour, ls=style, lw=2.2, label=label)
        axes.plot(thresholds[best], scores[best], "o", color=colour, ms=8, mec=CARD, mew=1.5)
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    finish_axes(axes, "background threshold", "lower center")


def _loss_chart(axes: Axes, trainings: Sequence[Training]) -> None:
    for training, colour, style in zip(trainings, LINES, STYLES, strict=False):
        steps = [row["step"] for row in training.rows]
        losses = smooth([row.get("loss") for row in training.rows])
        values = [np.nan if loss is None else loss for loss in losses]
        label = training.stage.name if len(trainings) > 1 else None
        dot = "o" if np.isfinite(values).sum() == 1 else None
        axes.plot(steps, values, color=colour, ls=style, lw=2.2, marker=dot, label=label)
    finish_axes(axes, "step", "upper right" if len(trainings) > 1 else "")


def _gallery(
    sheet: Sheet,
    rows: Sequence[Sample],
    heights: Sequence[Pixels],
    left: Pixels,
    colours: np.ndarray,
) -> None:
    width = _tile_width(rows, left)
    places = [left + _WORDS + _TILE_GAP + n * (width + _TILE_GAP) for n in range(8)]
    top = _HEADER + _GAP
    for view, place in zip(max((s.views for s in rows), key=len), places, strict=False):
        sheet.text(place, top + 12, view.title, 15, SOFT)
    top += 30
    for sample, height in zip(rows, heights, strict=True):
        _words(sheet, sample, left, top, height, colours)
        for view, place in zip(sample.views, places, strict=False):
            sheet.picture(view.picture, place, top, width, height)
        top += height + _TILE_GAP


def _words(
    sheet: Sheet, sample: Sample, left: Pixels, top: Pixels, height: Pixels, colours: np.ndarray
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
        if base > top + height:  # a crowded image; the page has them all
            break
        colour = "#" + bytes(colours[tag.index]).hex()
        sheet.text(left, base, "●", 15, colour)
        iou = "" if tag.iou is None else f"  {wording.percent(tag.iou)}"
        sheet.text(left + 18, base, wording.shortened(tag.name, 12) + iou, 14.5, SOFT)
