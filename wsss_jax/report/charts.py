"""Draws the charts of a run: threshold curves, and the figures of trainings."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from wsss_jax.report import wording
from wsss_jax.report.collect import Evaluation, Training
from wsss_jax.viz.line_chart import LineChart, Mark, Number, Series, smooth


def threshold_chart(evaluation: Evaluation) -> LineChart | None:
    """Draws mIoU, precision and recall by threshold, or returns None if masks were scored."""
    metrics = evaluation.stage.metrics
    if "miou_curve" not in metrics:
        return None
    lines = (("mIoU", "miou_curve"), ("precision", "precision_curve"), ("recall", "recall_curve"))
    series = [
        Series(name, [None if v is None else 100 * v for v in metrics[key]], shade)
        for shade, (name, key) in enumerate(lines, 1)
        if metrics.get(key)
    ]
    thresholds = metrics["thresholds"]
    best = int(np.argmax(metrics["miou_curve"]))
    top = 100 * metrics["miou_curve"][best]
    marks = [Mark(thresholds[best], top, f"best {top:.1f} at {thresholds[best]:.2f}")]
    used = metrics.get("threshold")
    # Thresholds have steps of 0.01. If the one that was used is not the best, it gets a line.
    if isinstance(used, int | float) and abs(used - thresholds[best]) > 1e-6:
        marks.append(Mark(used, None, f"used {used:.2f}"))
    return LineChart(
        wording.name(evaluation),
        thresholds,
        series,
        "background threshold",
        note=wording.choice_sentence(evaluation),
        marks=marks,
        zero=True,
    )


def miou_chart(
    title: str,
    curves: Sequence[tuple[str, int, Sequence[Number], Sequence[Number]]],
    note: str = "",
) -> LineChart | None:
    """Draws the mIoU by threshold of several maps with their best values, or returns None.

    Args:
      title: the title of the chart.
      curves: the name, shade, thresholds and mIoU in 0…1 of each line. Some versions try more
        thresholds than others, so that lines can end early.
      note: a sentence below the title.
    """
    if not curves:
        return None
    longest = max((thresholds for _, _, thresholds, _ in curves), key=len)
    series, marks = [], []
    for name, shade, thresholds, scores in curves:
        best = int(np.argmax(scores))
        found = [100 * value for value in scores]
        told = f"{name}: best {found[best]:.1f} at {thresholds[best]:.2f}"
        missing = [None] * (len(longest) - len(found))
        series.append(Series(name, [*found, *missing], shade, legend=told))
        marks.append(Mark(thresholds[best], found[best], shade=shade))
    return LineChart(
        title, longest, series, "background threshold", note=note, marks=marks, zero=True
    )


def miou_overview(evaluations: Sequence[Evaluation]) -> LineChart | None:
    """Draws the mIoU of all evaluations with thresholds in one chart."""
    found = [e for e in evaluations if "miou_curve" in e.stage.metrics]
    curves = [
        (wording.name(e), shade, e.stage.metrics["thresholds"], e.stage.metrics["miou_curve"])
        for shade, e in enumerate(found, 1)
    ]
    return miou_chart("mIoU by threshold", curves)


def training_charts(training: Training) -> list[LineChart]:
    """Draws the recorded loss, mIoU, terms of the loss, learning rate and speed of a training."""
    keys = sorted({key for row in training.rows for key in row})
    loss, terms = ["loss"], [key for key in keys if key.startswith("loss/")]
    scores = [key for key in keys if key.endswith("/miou")]
    charts = [_loss_chart(training, loss), _score_chart(training, scores), _terms(training, terms)]
    for key, title, shade in (
        ("lr", "Learning rate", 2),
        ("images_per_second", "Images per second", 3),
    ):
        steps, (values,) = _columns(training, [key])
        if _known([values]):
            series = [Series(title.lower(), values, shade)]
            charts.append(LineChart(title, steps, series, "step", zero=True))
    return [chart for chart in charts if chart is not None]


def _loss_chart(training: Training, keys: Sequence[str]) -> LineChart | None:
    steps, (values,) = _columns(training, keys)
    if not _known([values]):
        return None
    lines = [Series("raw", values, 1, faint=True), Series("loss", smooth(values), 1)]
    return LineChart("Loss", steps, lines, "step", note="Smoothed; faint: raw.")


def _score_chart(training: Training, keys: Sequence[str]) -> LineChart | None:
    """Draws the figures of the evaluators, each of which has its own steps."""
    steps, columns = _columns(training, keys)
    series, marks = [], []
    for shade, (key, values) in enumerate(zip(keys, columns, strict=True), 4):
        known = [
            (100 * value, step)
            for value, step in zip(values, steps, strict=True)
            if value is not None
        ]
        if not known:
            continue
        top, at = max(known, key=lambda pair: pair[0])
        name = key.removesuffix("/miou")
        told = f"best {top:.1f} at step {at:,.0f}"
        points = [None if value is None else 100 * value for value in values]
        series.append(Series(name, points, shade, joined=True, legend=f"{name}: {told}"))
        marks.append(Mark(at, top, told, shade))
    if not series:
        return None
    if len(series) > 1:  # The legend has the text.
        marks = [dataclasses.replace(mark, text="") for mark in marks]
    names = " and ".join(s.name for s in series)
    note = f"In percent, of {names}, measured during the training."
    return LineChart(
        "mIoU while training", steps, series, "step", note=note, marks=marks, zero=True
    )


def _terms(training: Training, keys: Sequence[str]) -> LineChart | None:
    steps, columns = _columns(training, keys)
    series = [
        Series(key.removeprefix("loss/"), smooth(values), shade)
        for shade, (key, values) in enumerate(zip(keys, columns, strict=True), 1)
        if _known([values])
    ]
    if not series:
        return None
    values = _known([s.y for s in series])
    # Terms of very different size share a chart only on a logarithmic axis.
    log = min(values) > 0 and max(values) > 30 * min(values)
    note = "Smoothed, logarithmic." if log else "Smoothed."
    return LineChart("Terms of the loss", steps, series, "step", note=note, log=log)


def loss_overview(trainings: Sequence[Training]) -> LineChart | None:
    """Draws the smoothed losses of all trainings in one chart, or returns None without losses."""
    found = []
    for training in trainings:
        steps, (values,) = _columns(training, ["loss"])
        if _known([values]):
            found.append((training.stage.name, dict(zip(steps, smooth(values), strict=True))))
    if not found:
        return None
    steps = sorted({step for _, losses in found for step in losses})
    series = [
        Series(name, [losses.get(step) for step in steps], shade, joined=True)
        for shade, (name, losses) in enumerate(found, 1)
    ]
    return LineChart("Training loss", steps, series, "step")


def _columns(
    training: Training, keys: Sequence[str]
) -> tuple[list[Number], list[list[Number | None]]]:
    """Returns the steps that have one of `keys`, and the finite values of each key there."""
    rows = [row for row in training.rows if any(key in row for key in keys)]
    return [row["step"] for row in rows], [[_finite(row.get(key)) for row in rows] for key in keys]


def _finite(value: Any) -> Number | None:
    return value if isinstance(value, int | float) and np.isfinite(value) else None


def _known(columns: Sequence[Sequence[Number | None]]) -> list[Number]:
    return [value for column in columns for value in column if value is not None]
