"""Draws the comparison as a single picture, for a README or a slide."""

from collections.abc import Sequence

from wsss_jax.comparison.charts import score_chart, scored_splits, threshold_chart
from wsss_jax.comparison.page import lede, title
from wsss_jax.comparison.trials import SPLITS, Comparison
from wsss_jax.report import wording
from wsss_jax.report.gallery import Sample
from wsss_jax.report.picture import MARGIN, WIDTH, draw_card, draw_chart, draw_header
from wsss_jax.viz.bar_chart import draw_bars
from wsss_jax.viz.sheet import Pixels, Sheet
from wsss_jax.viz.style import PAPER, SOFT

_GAP, _HEADER, _TILE_GAP = 32, 160, 10  # pixels, as all lengths here
_LEAST_CHARTS, _MOST_TILE = 380, 300


def draw_picture(comparison: Comparison, samples: Sequence[Sample]) -> bytes:
    """Returns a PNG 1600 pixels wide with scores, threshold curves and an image of each group.

    Args:
      comparison: the comparison, with at least one entry.
      samples: the images of the gallery, which can be empty.
    """
    groups = dict.fromkeys(sample.group for sample in samples)
    rows = [next(s for s in samples if s.group == group) for group in groups]
    columns = max((len(sample.views) for sample in rows), default=1)
    tile = (WIDTH - 2 * MARGIN - _TILE_GAP * (columns - 1)) / columns
    heights = [_tile_height(sample, tile) + 34 for sample in rows]
    bars = score_chart(comparison, scored_splits(comparison))
    charts = max(bars.height + 80, _LEAST_CHARTS)
    below = sum(heights) + _GAP if rows else 0
    sheet = Sheet(WIDTH, round(_HEADER + 2 * _GAP + charts + below), PAPER)
    data = comparison.entries[0].trials[0].run.data_name
    draw_header(sheet, _HEADER, title(comparison), data, lede(comparison))
    top = _HEADER + _GAP
    curves = next((c for s in SPLITS if (c := threshold_chart(comparison, s))), None)
    half = (WIDTH - 2 * MARGIN - _GAP) / 2
    wide = half if curves else WIDTH - 2 * MARGIN
    draw_card(sheet, bars.title, MARGIN, top, wide, charts)
    draw_bars(sheet, bars, MARGIN + 22, top + 54, wide - 44)
    if curves:
        draw_chart(sheet, curves, MARGIN + half + _GAP, top, half, charts)
    top += charts + _GAP
    for sample, height in zip(rows, heights, strict=True):
        _draw_sample(sheet, sample, top, tile, height - 34)
        top += height
    return sheet.png()


def _tile_height(sample: Sample, width: Pixels) -> Pixels:
    height, across = sample.views[0].picture.shape[:2]
    return min(width * min(max(height / across, 0.5), 1.4), _MOST_TILE)


def _draw_sample(sheet: Sheet, sample: Sample, top: Pixels, tile: Pixels, height: Pixels) -> None:
    """Draws the views of a sample below their titles."""
    for place, view in enumerate(sample.views):
        left = MARGIN + place * (tile + _TILE_GAP)
        name = f"{view.title} ({sample.group})" if place == 0 else view.title
        sheet.text(left, top + 12, wording.shortened(name, int(tile / 8)), 13.5, SOFT)
        # The picture has the width at which it is drawn, so that it starts below its title.
        wide = min(tile, height * view.picture.shape[1] / view.picture.shape[0])
        sheet.picture(view.picture, left, top + 20, wide, height)
