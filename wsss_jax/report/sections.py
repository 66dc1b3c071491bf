"""The parts of the page: pictures, scores, classes, training, settings."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from wsss_jax.report import tables, wording
from wsss_jax.report.charts import Mark, Number, Series, line_chart, smooth
from wsss_jax.report.collect import Evaluation, Run, Training
from wsss_jax.report.encode import Pictures
from wsss_jax.report.gallery import Sample, View
from wsss_jax.report.markup import Html, element, join

GROUPS = {
    "best": ("Best", "the highest mIoU of single images"),
    "median": ("Median", "the middle of the list: what to expect"),
    "worst": ("Worst", "the lowest mIoU: where it fails"),
    "sample": ("Samples", "in the order of the list"),
}


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: `name` is its anchor, `lede` the sentence under its title."""

    name: str
    title: str
    lede: str
    content: tuple[Html | None, ...] = ()

    def markup(self) -> Html:
        """The section as HTML."""
        heading = element("div", element("h2", self.title), element("p", self.lede), class_="head")
        return element("section", heading, self.content, id=self.name)


def gallery(
    samples: Sequence[Sample],
    evaluation: Evaluation | None,
    colours: Sequence[str],
    pictures: Pictures,
    reason: str,
) -> Section:
    """The samples, or the `reason` why there are none; `colours` by class index."""
    if not samples or evaluation is None:
        reason = reason or "No masks or maps were found, so there are no pictures."
        return Section("gallery", "Pictures", reason)
    ranked = " by the mIoU of single images" if samples[0].group != "sample" else ""
    split = f" of split {evaluation.split}" if evaluation.split else ""
    lede = f"{wording.kind(evaluation)}{split}{ranked}. Choose a picture to enlarge it."
    scale = element("p", "weak", element("i", class_="ramp"), "strong activation", class_="scale")
    content = [scale]
    for group, (title, remark) in GROUPS.items():
        rows = [
            sample_row(sample, colours, pictures) for sample in samples if sample.group == group
        ]
        if rows:
            heading = element("h3", title, element("small", remark))
            content.append(element("div", heading, rows, class_="group"))
    return Section("gallery", "Pictures", lede, tuple(content))


def sample_row(sample: Sample, colours: Sequence[str], pictures: Pictures) -> Html:
    """A sample with its views; `colours` by class index."""
    height, width = sample.views[0].picture.shape[:2]
    tags = [
        element(
            "li",
            element("i", class_="swatch", style=f"background:{colours[tag.index]}"),
            tag.name,
            element("b", wording.percent(tag.iou)) if tag.iou is not None else None,
        )
        for tag in sample.tags
    ]
    score = None
    if sample.miou is not None:
        score = element("p", wording.percent(sample.miou), element("small", "mIoU"), class_="score")
    return element(
        "article",
        element("div", element("h4", sample.id), score, element("ul", tags, class_="tags")),
        (_tile(view, pictures) for view in sample.views),
        class_="sample",
        data_id=sample.id,
        # Bounded, so that a panorama or a pole does not break the rhythm of the page.
        style=f"--shape:{min(max(width / height, 0.62), 1.9):.3f}",
    )


def _tile(view: View, pictures: Pictures) -> Html:
    picture = element("img", src=pictures.uri(view.picture), alt=view.alt)
    return element(
        "figure",
        element("button", picture, type="button", aria_label=f"Enlarge: {view.alt}"),
        element("figcaption", view.title),
        class_="tile",
        data_kind=view.kind,
    )


def scores(run: Run) -> Section:
    """The table of scores and the threshold curves."""
    if not run.evaluations:
        return Section("scores", "Scores", "Nothing was evaluated in this run.")
    curves = [_threshold_chart(e) for e in run.evaluations if "miou_curve" in e.stage.metrics]
    lede = (
        "In per cent. mIoU is the mean over the classes, background included, of intersection"
        " over union; pixels marked “ignore” do not count. "
    )
    protocols = {str(e.stage.metrics.get("protocol", "")) for e in run.evaluations}
    lede += " ".join(wording.protocol_sentence(name) for name in sorted(protocols))
    return Section(
        "scores",
        "Scores",
        lede.strip(),
        (tables.score_table(run), element("div", curves, class_="charts") if curves else None),
    )


def _threshold_chart(evaluation: Evaluation) -> Html:
    metrics = evaluation.stage.metrics
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
    # Thresholds are steps of 0.01; a used one beside the best is worth its own line.
    if isinstance(used, int | float) and abs(used - thresholds[best]) > 1e-6:
        marks.append(Mark(used, None, f"used {used:.2f}"))
    return line_chart(
        wording.name(evaluation),
        thresholds,
        series,
        x_name="background threshold",
        note=wording.choice_sentence(evaluation),
        marks=marks,
        zero=True,
    )


def classes(run: Run, swatches: dict[str, str]) -> Section | None:
    """IoU by class; None where no evaluation has it."""
    shown = [e for e in run.evaluations if e.stage.metrics.get("iou")][:4]
    if not shown:
        return None
    return Section(
        "classes",
        "Classes",
        "IoU of every class, in per cent. Choose a heading to sort.",
        (tables.class_table(shown, swatches),),
    )


def training(run: Run) -> Section:
    """The curves of every training stage."""
    recorded = [t for t in run.trainings if t.rows]
    if not recorded:
        return Section("training", "Training", "No training figures were recorded in this run.")
    parts = []
    for one in recorded:
        heading = element("h3", one.stage.name, class_="stage") if len(recorded) > 1 else None
        parts.append(join([heading, element("div", _training_charts(one), class_="charts")]))
    return Section(
        "training",
        "Training",
        "Point at a curve, or focus it and use the arrow keys, to read its values.",
        tuple(parts),
    )


def _training_charts(one: Training) -> list[Html]:
    """Charts of loss, loss terms, learning rate and speed, as far as they were recorded."""
    steps = [float(row["step"]) for row in one.rows]

    def column(key: str) -> list[Number | None]:
        values = [row.get(key) for row in one.rows]
        return [v if isinstance(v, int | float) and np.isfinite(v) else None for v in values]

    charts = []
    loss = column("loss")
    if _known(loss):
        lines = [Series("raw", loss, 1, faint=True), Series("loss", smooth(loss), 1)]
        charts.append(line_chart("Loss", steps, lines, x_name="step", note="Smoothed; faint: raw."))
    keys = sorted({key for row in one.rows for key in row if key.startswith("loss/")})
    terms = [
        Series(key.removeprefix("loss/"), smooth(column(key)), number % 6 + 1)
        for number, key in enumerate(keys)
        if _known(column(key))
    ]
    if terms:
        values = [v for term in terms for v in _known(term.y)]
        # Terms of very different size share a chart only on a logarithmic axis.
        log = min(values) > 0 and max(values) > 30 * min(values)
        note = "Smoothed, logarithmic." if log else "Smoothed."
        chart = line_chart("Terms of the loss", steps, terms, x_name="step", note=note, log=log)
        charts.append(chart)
    for key, title in (("lr", "Learning rate"), ("images_per_second", "Images per second")):
        if _known(column(key)):
            line = Series(title.lower(), column(key), 2 if key == "lr" else 3)
            charts.append(line_chart(title, steps, [line], x_name="step", zero=True))
    return charts


def _known(values: Sequence[Any]) -> list[Number]:
    return [value for value in values if value is not None]


def settings(run: Run) -> Section:
    """The chain of stages, and every value of the recipe, folded."""
    links = [
        element(
            "li",
            element("b", stage.name),
            element("small", " ".join(wording.duration(stage.seconds)))
            if stage.seconds is not None
            else element("small", "done" if stage.finished else "no result yet"),
            class_=None if stage.finished else "open",
        )
        for stage in run.stages
    ]
    return Section(
        "settings",
        "Settings",
        "The stages in the order they ran, and every value of the recipe.",
        (element("ol", links, class_="chain"), tables.settings(run)),
    )
