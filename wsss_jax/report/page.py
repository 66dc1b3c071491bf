"""Builds the page of a run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from wsss_jax.files import flatten
from wsss_jax.report import wording
from wsss_jax.report.charts import threshold_chart, training_charts
from wsss_jax.report.collect import Evaluation, Run
from wsss_jax.report.gallery import GROUPS, Sample, View
from wsss_jax.report.render import Figure, line_figure, render
from wsss_jax.viz.colors import class_colors


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """A class in the table with its color, and its IoU and rates, which are None if unknown."""

    name: str
    color: str
    ious: tuple[float | None, ...]
    rates: tuple[float | None, ...]


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """The IoU of every class in `evaluations`, and `rates` (precision, recall) in the last one."""

    evaluations: tuple[Evaluation, ...]
    rates: tuple[str, ...]
    rows: tuple[ClassRow, ...]
    mean: ClassRow


@dataclasses.dataclass(frozen=True)
class Fold:
    """The values of a section, folded away under its name; `note` says what they are."""

    name: str
    note: str
    values: tuple[tuple[str, Any], ...]


def build_page(
    run: Run,
    samples: Sequence[Sample],
    evaluation: Evaluation | None,
    classes: Sequence[str],
    provenance: Mapping[str, str],
    no_pictures: str = "",
) -> str:
    """Returns the whole page as text, below 4 MB.

    Args:
      run: the results of the stages.
      samples: the images of the gallery, which can be empty.
      evaluation: the evaluation of the gallery.
      classes: the names of the foreground classes in the order of their indices.
      provenance: names and values for the bottom of the page.
      no_pictures: a sentence that says why the gallery is empty.
    """
    colors = page_colors(classes)
    named = dict(zip(("background", *classes), colors, strict=True))
    charts = [chart for e in run.evaluations if (chart := threshold_chart(e)) is not None]
    recorded = [training for training in run.trainings if training.rows]
    trainings: list[tuple[str, str, list[Figure]]] = [
        (
            one.stage.name,
            wording.weights_note(one),
            [line_figure(c, f"training{n}-{k}") for k, c in enumerate(training_charts(one))],
        )
        for n, one in enumerate(recorded)
    ]
    return render(
        "wsss_jax.report",
        "report.html.jinja",
        run=run,
        headlines=wording.headlines(run),
        strip=_strip(samples),
        samples=samples,
        groups=GROUPS,
        evaluation=evaluation,
        no_pictures=no_pictures,
        colors=colors,
        protocols=wording.protocol_sentences(run.evaluations),
        thresholds=[line_figure(chart, f"threshold{n}") for n, chart in enumerate(charts)],
        classes=_class_table(run, named),
        trainings=trainings,
        folds=[
            fold("data and seed", "", {"seed": run.seed, "data": run.data}),
            *(fold(stage.name, stage.type, stage.section) for stage in run.stages),
        ],
        provenance=provenance,
    )


def page_colors(classes: Sequence[str]) -> list[str]:
    """Returns the colors of background and classes in the notation of style sheets."""
    return ["#" + bytes(row).hex() for row in class_colors(len(classes))]


def fold(name: str, note: str, values: Mapping[str, Any]) -> Fold:
    """Returns the values of a section, where nested ones have their full names."""
    shown = tuple((key, value) for key, value in flatten(dict(values)) if key != "type")
    return Fold(name, "" if note == name else note, shown)


def _strip(samples: Sequence[Sample]) -> tuple[tuple[str, View], ...]:
    """Returns three captioned pictures, from label to mask, of the best sample that has them."""
    for sample in samples:
        captions = {"image": f"label “{', '.join(sample.labels)}”"}
        captions |= {"heat": "activation", "mask": "mask"}
        views = [(caption, sample.view(kind)) for kind, caption in captions.items()]
        found = tuple((caption, view) for caption, view in views if view is not None)
        if len(found) == len(captions):
            return found
    return ()


def _class_table(run: Run, colors: Mapping[str, str]) -> ClassTable | None:
    """Returns the table of `wording.leading` evaluations, or None without scores of classes."""
    shown = wording.leading([e for e in run.evaluations if e.stage.metrics.get("iou")])
    if not shown:
        return None
    metrics = [e.stage.metrics for e in shown]
    per_class = metrics[-1].get("per_class") or {}
    rates = tuple(
        key for key in ("precision", "recall") if any(key in v for v in per_class.values())
    )
    known = {name for m in metrics for name in m["iou"]}
    names = [name for name in colors if name in known]
    names += sorted(known - set(names))
    rows = tuple(
        ClassRow(
            name,
            colors.get(name, "#888"),
            tuple(m["iou"].get(name) for m in metrics),
            tuple(per_class.get(name, {}).get(key) for key in rates),
        )
        for name in names
    )
    means = tuple(m.get("miou") for m in metrics), tuple(metrics[-1].get(key) for key in rates)
    return ClassTable(tuple(shown), rates, rows, ClassRow("Mean", "", *means))
