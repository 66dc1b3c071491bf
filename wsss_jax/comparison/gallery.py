"""Selects images for which the results of all recipes of a comparison are shown."""

import dataclasses
import math
from collections.abc import Sequence

from wsss_jax.comparison.trials import SPLITS, Comparison, Entry
from wsss_jax.data.source import Source
from wsss_jax.report import wording
from wsss_jax.report.gallery import Sample, View, choose, make_sample
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
    rivals = [entry for entry in comparison.entries if not entry.supervised] or comparison.entries
    scores = [entry.trials[0].scored[split].per_image for entry in rivals]
    position = {name: index for index, name in enumerate(source.ids)}
    known = [name for name in scores[0] if name in position and all(name in s for s in scores)]
    means = {name: math.fsum(s[name] for s in scores) / len(scores) for name in known}
    return [
        _sample(comparison.entries, source, split, position[name], group, means[name])
        for group, name in choose(means, count)
    ]


def _sample(
    entries: Sequence[Entry], source: Source, split: str, index: int, group: str, mean: float
) -> Sample:
    record, colors = source[index], class_colors(len(source.classes))
    made = [
        make_sample(entry.trials[0].scored[split], record, source.classes, colors, group)
        for entry in entries
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
    return Sample(made[0].id, group, mean, made[0].labels, tags, tuple(views))
