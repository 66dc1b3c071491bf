"""The page's tables: scores with their provenance, classes, settings."""

import math
from collections.abc import Sequence
from typing import Any

from wsss_jax.files import flatten
from wsss_jax.report import wording
from wsss_jax.report.collect import Evaluation, Run
from wsss_jax.report.markup import Html, element, join


def score_table(run: Run) -> Html:
    """One row an evaluation: the scores, and everything needed to compare them with others."""
    head = (
        ("Scored", ""),
        ("Split", ""),
        ("mIoU", "num"),
        ("Precision", "num"),
        ("Recall", "num"),
        ("Pixel acc.", "num"),
        ("Threshold", ""),
        ("Scales", ""),
        ("Flip", ""),
        ("CRF", ""),
        ("Ground truth", ""),
    )
    rows = [_score_row(evaluation, run) for evaluation in run.evaluations]
    return scrolling(
        element(
            "table",
            element("thead", element("tr", (head_cell(name, kind) for name, kind in head))),
            element("tbody", rows),
            class_="scores",
        ),
        "Scores of every evaluation",
    )


def _score_row(evaluation: Evaluation, run: Run) -> Html:
    metrics = evaluation.stage.metrics
    images = metrics.get("images")
    threshold = wording.threshold_note(evaluation).removeprefix("threshold ").split(", ", 1)
    return element(
        "tr",
        element(
            "th",
            wording.kind(evaluation),
            element("small", f"stage {evaluation.scored.name}"),
            scope="row",
        ),
        element(
            "td",
            evaluation.split or "–",
            element("small", wording.count(images, "image")) if isinstance(images, int) else None,
        ),
        element(
            "td",
            element("b", wording.percent(_value(metrics.get("miou")))),
            element("small", str(metrics.get("protocol", ""))),
            class_="num",
        ),
        (
            element("td", wording.percent(_value(metrics.get(key))), class_="num")
            for key in ("precision", "recall", "pixel_accuracy")
        ),
        element("td", threshold[0] or "–", (element("small", how) for how in threshold[1:])),
        element("td", wording.scales_note(evaluation)),
        element("td", wording.flip_note(evaluation)),
        element("td", wording.crf_note(evaluation)),
        element("td", _path(wording.ground_truth_note(evaluation, run))),
    )


def _path(path: str) -> Html:
    """A path that breaks behind its slashes."""
    first, *rest = path.split("/")
    parts = [first, *((Html("/<wbr>"), part) for part in rest)]
    return element("span", parts, class_="path")


def class_table(evaluations: Sequence[Evaluation], swatches: dict[str, str]) -> Html:
    """IoU of every class in every evaluation as bars, sortable by any column.

    Precision and recall are those of the last evaluation. `swatches` maps class names to colours.
    """
    last = evaluations[-1]
    known = {name for e in evaluations for name in e.stage.metrics.get("iou", {})}
    names = [name for name in swatches if name in known]
    names += sorted(known - set(names))
    head = [_sort_head("Class", "")]
    head += [_sort_head(wording.name(e), "bar", note="IoU") for e in evaluations]
    per_class = last.stage.metrics.get("per_class") or {}
    extra = [key for key in ("precision", "recall") if any(key in v for v in per_class.values())]
    head += [_sort_head(key.capitalize(), "num", note=wording.name(last)) for key in extra]
    rows = []
    for name in names:
        cells = [_bar_cell(_value(e.stage.metrics.get("iou", {}).get(name))) for e in evaluations]
        cells += [_number_cell(_value(per_class.get(name, {}).get(key))) for key in extra]
        swatch = element("i", class_="swatch", style=f"background:{swatches.get(name, '#888')}")
        label = element("th", swatch, name, scope="row", data_value=name)
        rows.append(element("tr", label, cells))
    means = [_bar_cell(_value(e.stage.metrics.get("miou"))) for e in evaluations]
    means += [_number_cell(_value(last.stage.metrics.get(key))) for key in extra]
    return scrolling(
        element(
            "table",
            element("thead", element("tr", head)),
            element("tbody", rows),
            element("tfoot", element("tr", element("th", "Mean", scope="row"), means)),
            class_="classes",
        ),
        "IoU per class",
    )


def settings(run: Run) -> Html:
    """Every value of every stage, folded away."""
    general = {"seed": run.seed, "data": run.data}
    parts = [fold("data and seed", "", general)]
    parts += [fold(s.name, s.type, s.section) for s in run.stages]
    return join(parts)


def fold(name: str, kind: str, values: dict[str, Any]) -> Html:
    """The values of a section, folded away under its name."""
    rows = [(key, value) for key, value in flatten(values) if key != "type"]
    kind = "" if kind == name else kind
    amount = element("small", wording.count(len(rows), "value"))
    return element(
        "details",
        element("summary", element("b", name), element("span", kind), amount),
        element(
            "table",
            element(
                "tbody",
                (
                    element("tr", element("th", key, scope="row"), element("td", _plain(value)))
                    for key, value in rows
                ),
            ),
            class_="values",
        ),
    )


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    if value is None or value in ("", {}):
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def head_cell(name: str, kind: str) -> Html:
    """The heading of a column."""
    return element("th", name, scope="col", class_=kind or None)


def _sort_head(name: str, kind: str, note: str = "") -> Html:
    button = element("button", name, element("small", note) if note else None, type="button")
    return element("th", button, scope="col", class_=kind or None, aria_sort="none")


def _bar_cell(value: float | None) -> Html:
    if value is None:
        return element("td", "–", class_="bar", data_value=-1)
    bar = element("i", style=f"width:{100 * value:.1f}%")
    text = element("b", wording.percent(value))
    return element("td", element("span", bar, class_="track"), text, class_="bar", data_value=value)


def _number_cell(value: float | None) -> Html:
    return element(
        "td", wording.percent(value), class_="num", data_value=-1 if value is None else value
    )


def scrolling(table: Html, label: str) -> Html:
    """A table that scrolls where the screen is narrower."""
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)


def _value(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
