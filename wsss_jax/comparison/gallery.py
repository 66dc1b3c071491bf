"""Selects images for which the results of all recipes of a comparison are shown."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from wsss_jax.comparison.trials import SPLITS, Comparison, Entry
from wsss_jax.data.columns import sorted_positions
from wsss_jax.data.source import Source
from wsss_jax.report import wording
from wsss_jax.report.gallery import Sample, View, choose, make_sample
from wsss_jax.scoring.image_scores import read_image_scores
from wsss_jax.viz.colors import class_colors


def shown_split(comparison: Comparison) -> str:
    """Returns the split whose images are shown, which is val (unseen images) if all score it."""
    for split in reversed(SPLITS):
        if all(split in entry.trials[0].scored for entry in comparison.entries):
            return split
    return ""


def make_gallery(comparison: Comparison, source: Source, split: str, count: int) -> list[Sample]:
    """Returns the best, median and worst images of `split` by the mean mIoU over the recipes.

    There are `count` of each. The views are the image, the ground truth and, for the first seed of
    each recipe, its map, or its mask if it makes no maps. Upper bounds do not affect the order.

    Raises:
      UserError: an image or a mask is damaged.
    """
    order = sorted_positions(source.ids)
    folders = [entry.trials[0].scored[split].stage.folder for entry in comparison.entries]
    scores = np.stack([read_image_scores(folder, source.ids, order) for folder in folders])
    rivals = scores[[not entry.supervised for entry in comparison.entries]]
    rivals = rivals if len(rivals) else scores
    sums = map(math.fsum, rivals.T)  # NaN if one of them has no score
    means = np.fromiter(sums, np.float64, len(source)) / len(rivals)
    return [
        _sample(comparison.entries, source, split, position, group, means[position], scores)
        for group, position in choose(means, order, count)
    ]


def _sample(
    entries: Sequence[Entry],
    source: Source,
    split: str,
    index: int,
    group: str,
    mean: float,
    scores: Float64[np.ndarray, "entries n"],
) -> Sample:
    record, colors = source[index], class_colors(len(source.classes))
    made = [
        make_sample(entry.trials[0].scored[split], record, source.classes, colors, group, score)
        for entry, score in zip(entries, scores[:, index], strict=True)
    ]
    views = [view for view in made[0].views if view.kind in ("image", "truth")]
    for entry, sample in zip(entries, made, strict=True):
        view = sample.view("heat") or sample.view("mask")
        if view is not None:
            # The kind of a view distinguishes it from the others of the image.
            score = "" if sample.miou is None else f" {wording.percent(sample.miou)}"
            views.append(
                View(entry.recipe, entry.label + score, f"{entry.label}: {view.alt}", view.picture)
            )
    present = {name for sample in made for name in sample.labels}
    tags = tuple(dataclasses.replace(tag, iou=None) for tag in made[0].tags if tag.name in present)
    return Sample(made[0].id, group, float(mean), made[0].labels, tags, tuple(views))
