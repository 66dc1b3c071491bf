"""Builds the page of a run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from wsss_jax.files import flatten
from wsss_jax.report import wording
from wsss_jax.report.best_masks import best_masks
from wsss_jax.report.charts import threshold_chart, training_charts
from wsss_jax.report.collect import Evaluation, Run, StageResult
from wsss_jax.report.explorer import Explorer
from wsss_jax.report.gallery import GROUPS, Sample, View
from wsss_jax.report.render import Figure, line_figure, render
from wsss_jax.viz.colors import class_colors

_MEASURES = {
    "iou": ("IoU", "miou"),
    "precision": ("Precision", "precision"),
    "recall": ("Recall", "recall"),
    "fp_rate": ("False-positive rate", ""),
    "fn_rate": ("False-negative rate", ""),
    "boundary_iou": ("Boundary IoU", "boundary_miou"),
}
"""The title of each measure of a class, and the name of its mean in the metrics, if it has one."""


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """A class in the table: its color, and `values` [measure][evaluation], None if unknown."""

    name: str
    color: str
    values: tuple[tuple[float | None, ...], ...]


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """The measures of every class in all evaluations with scores of classes."""

    evaluations: tuple[Evaluation, ...]
    measures: tuple[str, ...]
    rows: tuple[ClassRow, ...]
    mean: ClassRow


@dataclasses.dataclass(frozen=True)
class MaskRow:
    """A class in the table of a run without scores.

    Attributes:
      name: the class, the background or ``ignore``.
      color: its color on the page.
      labeled: the number of images whose label has it, or None if that is unknown.
      found: for each stage, the number of masks that show it and its share of all pixels.
    """

    name: str
    color: str
    labeled: int | None
    found: tuple[tuple[int | None, float], ...]


@dataclasses.dataclass(frozen=True)
class MaskTable:
    """What the masks of a run without scores show; `split` is that of the labels."""

    split: str
    stages: tuple[StageResult, ...]
    rows: tuple[MaskRow, ...]


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
    explorer: Explorer | None = None,
    no_explorer: str = "",
    next_command: str = "",
    labeled: Mapping[str, int] = {},
) -> str:
    """Returns the whole page as text, below 4 MB without the explorer.

    Args:
      run: the results of the stages.
      samples: the images of the gallery, which can be empty.
      evaluation: the evaluation of the gallery.
      classes: the names of the foreground classes in the order of their indices.
      provenance: names and values for the bottom of the page.
      no_pictures: a sentence that says why the gallery is empty.
      explorer: the data of the explorer, if there is one.
      no_explorer: a sentence that says why there is none although there could be.
      next_command: the command that masks other photographs, if there is one.
      labeled: the number of images that have each class in the split of `evaluation`, for a run
        without scores.
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
        further=explorer.bytes if explorer else 0,
        explorer=explorer,
        no_explorer=no_explorer,
        run=run,
        best=best_masks(run),
        next_command=next_command,
        headlines=wording.headlines(run),
        strip=_strip(samples),
        samples=samples,
        groups=GROUPS,
        evaluation=evaluation,
        no_pictures=no_pictures,
        colors=colors,
        protocols=wording.protocol_sentences(run.evaluations),
        thresholds=[line_figure(chart, f"threshold{n}") for n, chart in enumerate(charts)],
        classes=(table := _class_table(run, named)),
        masks=None if table else _mask_table(run, named, labeled, evaluation),
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
    """Returns the table of all evaluations, or None without scores of classes."""
    shown = [e for e in run.evaluations if e.stage.metrics.get("iou")]
    if not shown:
        return None
    metrics = [e.stage.metrics for e in shown]
    known = {name for m in metrics for name in m["iou"]}
    names = [name for name in colors if name in known]
    names += sorted(known - set(names))
    values = {
        name: tuple(tuple(_measured(m, name, key) for m in metrics) for key in _MEASURES)
        for name in names
    }
    means = tuple(tuple(m.get(mean) for m in metrics) for _, mean in _MEASURES.values())
    kept = [
        place
        for place in range(len(_MEASURES))
        if any(value is not None for found in values.values() for value in found[place])
    ]

    def row(name: str, color: str, found: tuple[tuple[float | None, ...], ...]) -> ClassRow:
        return ClassRow(name, color, tuple(found[place] for place in kept))

    titles = [title for title, _ in _MEASURES.values()]
    return ClassTable(
        tuple(shown),
        tuple(titles[place] for place in kept),
        tuple(row(name, colors.get(name, "#888"), values[name]) for name in names),
        row("Mean", "", means),
    )


def _mask_table(
    run: Run, colors: Mapping[str, str], labeled: Mapping[str, int], evaluation: Evaluation | None
) -> MaskTable | None:
    """Returns the table of all stages that recorded what their masks show, if there are any."""
    stages = [s for s in run.stages if isinstance(s.metrics.get("class_shares"), dict)]
    if not stages:
        return None
    shares = [stage.metrics["class_shares"] for stage in stages]
    images = [stage.metrics.get("class_images", {}) for stage in stages]
    some = [name for name in ("ignore",) if any(found.get(name) for found in shares)]
    rows = [
        MaskRow(
            name,
            colors.get(name, "#888"),
            labeled.get(name),
            tuple((i.get(name), s.get(name, 0.0)) for i, s in zip(images, shares, strict=True)),
        )
        for name in (*colors, *some)
    ]
    return MaskTable(evaluation.split if evaluation else "", tuple(stages), tuple(rows))


def _measured(metrics: Mapping[str, Any], name: str, measure: str) -> float | None:
    if measure in ("iou", "boundary_iou"):
        return (metrics.get(measure) or {}).get(name)
    return (metrics.get("per_class") or {}).get(name, {}).get(measure)
