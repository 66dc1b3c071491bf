"""Selects the best, median and worst images of an evaluation, with the run's maps and masks."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float64, Int, UInt8

from wsss_jax.data.columns import sorted_positions
from wsss_jax.data.formats.cam_files import Cams, find_cams, read_cams
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import IGNORE, decode_mask
from wsss_jax.data.source import Record, Source
from wsss_jax.files import read_bytes
from wsss_jax.report.collect import Evaluation, Run, StageResult
from wsss_jax.scoring.confusion import strongest
from wsss_jax.scoring.image_scores import read_image_scores
from wsss_jax.viz.colors import class_colors, paint_mask
from wsss_jax.viz.overlay import cam_overlay

_LONG_SIDE = 480  # pixels; four such views are wider than any screen shows them

GROUPS = {
    "best": ("Best", "the highest mIoU of single images"),
    "median": ("Median", "the middle of the list: what to expect"),
    "worst": ("Worst", "the lowest mIoU: where it fails"),
    "sample": ("Samples", "in the order of the list"),
}
"""Title and remark of every group of samples."""


@dataclasses.dataclass(frozen=True)
class View:
    """A picture of a sample, whose `kind` is image, truth, heat or mask."""

    kind: str
    title: str
    alt: str
    picture: UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class Tag:
    """A class in a sample, with its index (1 … C) and IoU, which is None if there is no mask."""

    name: str
    index: int
    iou: float | None


@dataclasses.dataclass(frozen=True)
class Sample:
    """An image of the gallery; `group` is best, median, worst or sample.

    `labels` are the names of its image-level labels, `tags` all classes of its truth or mask.
    """

    id: str
    group: str
    miou: float | None
    labels: tuple[str, ...]
    tags: tuple[Tag, ...]
    views: tuple[View, ...]

    @property
    def shape(self) -> float:
        """Width over height, bounded so that a panorama or a pole does not break the page."""
        height, width = self.views[0].picture.shape[:2]
        return min(max(width / height, 0.62), 1.9)

    def view(self, kind: str) -> View | None:
        """The view of a kind, where there is one."""
        return next((view for view in self.views if view.kind == kind), None)


def shown_evaluation(run: Run) -> Evaluation | None:
    """Returns the evaluation whose images are shown, of the latest masks or otherwise maps.

    If nothing was scored, because there are no true masks, it has no scores.
    """
    with_pictures = [e for e in run.evaluations if e.folder("masks") or e.folder("cams")]
    if not with_pictures:
        with_pictures = [e for e in map(_unscored, _chains(run)) if e.stage.finished]
        with_pictures = [e for e in with_pictures if e.folder("masks") or e.folder("cams")]
    of_masks = [e for e in with_pictures if e.scored.type != "infer_cam"]
    return (of_masks or with_pictures or [None])[-1]


def _chains(run: Run) -> list[tuple[StageResult, ...]]:
    """Returns each stage with all stages upstream of it, the nearest first."""
    by_name = {stage.name: stage for stage in run.stages}
    return [(stage, *(by_name[name] for name in stage.upstream)) for stage in run.stages]


def _unscored(chain: tuple[StageResult, ...]) -> Evaluation:
    return Evaluation(chain[0], chain)


def choose(
    scores: Float64[np.ndarray, " n"], order: Int[np.ndarray, " n"], count: int
) -> list[tuple[str, int]]:
    """Returns groups and positions of the `count` best, median and worst images, worst one first.

    No image is in two groups; with fewer than 3 · `count` images, the groups are smaller. Ties are
    broken by id.

    Args:
      scores: the score of each image, or NaN if it has none.
      order: the positions of the images in the order of their ids; see `sorted_positions`.
      count: the number of images in a group.
    """
    ranked = order[(-scores[order]).argsort(kind="stable")]  # NaN comes last
    ranked = ranked[: len(scores) - int(np.isnan(scores).sum())]
    count = min(count, max(1, len(ranked) // 3))
    best, rest = ranked[:count], ranked[count:]
    worst, rest = rest[max(0, len(rest) - count) :], rest[: max(0, len(rest) - count)]
    start = max(0, (len(rest) - count) // 2)
    median = rest[start : start + count]
    groups = (("best", best), ("median", median), ("worst", worst[::-1]))
    return [(group, int(position)) for group, found in groups for position in found]


def map_folders(run: Run) -> tuple[Path, ...]:
    """Returns the folders of the run that have activation maps of any split."""
    folders = (stage.folder / "cams" for stage in run.stages if stage.type == "infer_cam")
    return tuple(folder for folder in folders if folder.is_dir())


def make_gallery(
    evaluation: Evaluation, source: Source, count: int, maps: Sequence[Path] = ()
) -> list[Sample]:
    """Returns the samples of `evaluation`, `count` per group, without images that have no score.

    `maps`: folders of activation maps, shown where the evaluated masks were not made from maps.

    Raises:
      UserError: an image or mask is broken.
    """
    order = sorted_positions(source.ids)
    scores = read_image_scores(evaluation.stage.folder, source.ids, order)
    chosen = choose(scores, order, count)
    if not chosen:
        made = (p for p, name in enumerate(source.ids) if _is_made(evaluation, name))
        chosen = [("sample", position) for position in itertools.islice(made, 3 * count)]
    colors = class_colors(len(source.classes))
    return [
        make_sample(
            evaluation, source[position], source.classes, colors, group, scores[position], maps
        )
        for group, position in chosen
    ]


def _is_made(evaluation: Evaluation, name: str) -> bool:
    masks, cams = evaluation.folder("masks"), evaluation.folder("cams")
    return bool(masks and (masks / f"{name}.png").is_file()) or bool(cams and find_cams(cams, name))


def make_sample(
    evaluation: Evaluation,
    record: Record,
    classes: Sequence[str],
    colors: UInt8[np.ndarray, "n 3"],
    group: str,
    score: float,
    maps: Sequence[Path] = (),
) -> Sample:
    """An image with what `evaluation` scored there; `colors` as of `class_colors`.

    `score` is its mIoU, or NaN if it has none; `maps` as of `make_gallery`.

    Raises:
      UserError: the image or a mask is broken.
    """
    name = record["id"]
    image = decode_image(record["image"], name)
    encoded = record["segmentation"]
    truth = None if encoded is None else decode_mask(encoded, name, len(classes))
    cams = _cams(evaluation.folder("cams"), name, image)
    mask = _mask(evaluation, name, len(classes), cams)
    present = [int(index) + 1 for index in np.flatnonzero(np.asarray(record["label"]) > 0)]
    found = set(present)
    for label_map in (truth, mask):
        if label_map is not None:
            found |= {int(index) for index in np.unique(label_map)} - {0, IGNORE}
    tags = tuple(
        Tag(classes[index - 1], index, _iou(truth, mask, index)) for index in sorted(found)
    )
    names = tuple(classes[index - 1] for index in present)
    labels = ", ".join(names) or "no class"
    small = _fit(image)
    views = [View("image", "Image", f"Photograph {name}, labeled {labels}", small)]
    if truth is not None:
        painted = paint_mask(small, _fit_mask(truth, small), colors)
        views.append(View("truth", "Ground truth", f"True mask of {name}: {labels}", painted))
    others = (_cams(folder, name, image) for folder in maps)
    cams = cams or next((found for found in others if found is not None), None)
    if cams is not None:
        method = cv2.INTER_AREA if len(small) < len(image) else cv2.INTER_LINEAR
        heat = cv2.resize(_heat(cams.cam, image), small.shape[1::-1], interpolation=method)
        alt = f"Class activation of {name}: light where {labels} was found"
        views.append(View("heat", "Activation", alt, cam_overlay(small, heat)))
    if mask is not None:
        painted = paint_mask(small, _fit_mask(mask, small), colors)
        made = ", ".join(tag.name for tag in tags if (mask == tag.index).any()) or "background only"
        views.append(View("mask", "Mask", f"Predicted mask of {name}: {made}", painted))
    miou = None if np.isnan(score) else float(score)
    return Sample(name, group, miou, names, tags, tuple(views))


def _cams(folder: Path | None, name: str, image: np.ndarray) -> Cams | None:
    """Returns the maps of an image in float32, or None if there are none of its size."""
    path = find_cams(folder, name) if folder else None
    if path is None:
        return None
    keys, maps = read_cams(path)
    return Cams(keys, maps.astype(np.float32)) if maps.shape[1:] == image.shape[:2] else None


def _heat(
    maps: Float[np.ndarray, "k h w"], image: UInt8[np.ndarray, "h w 3"]
) -> Float[np.ndarray, "h w"]:
    return maps.max(0) if len(maps) else np.zeros(image.shape[:2], np.float32)


def _mask(
    evaluation: Evaluation, name: str, num_classes: int, cams: Cams | None
) -> UInt8[np.ndarray, "h w"] | None:
    folder = evaluation.folder("masks")
    path = folder / f"{name}.png" if folder else None
    if path is not None and path.is_file():
        return decode_mask(read_bytes(path), str(path), num_classes)
    threshold = evaluation.find("threshold")
    if cams is None or not isinstance(threshold, int | float):
        return None
    winner, score = strongest(cams.cam, cams.keys)
    return np.where(score > np.float32(threshold), winner, 0).astype(np.uint8)


def _iou(truth: np.ndarray | None, mask: np.ndarray | None, index: int) -> float | None:
    if truth is None or mask is None or truth.shape != mask.shape:
        return None
    counted = truth != IGNORE
    true, made = (truth == index) & counted, (mask == index) & counted
    union = int((true | made).sum())
    return int((true & made).sum()) / union if union else None


def _fit(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "a b 3"]:
    """Resizes a picture for a page, upward by whole factors so that outlines stay thin."""
    factor = _LONG_SIDE / max(image.shape[:2])
    if 1 <= factor < 2:
        return image
    factor = float(int(factor)) if factor >= 2 else factor
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    method = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    return cv2.resize(image, (width, height), interpolation=method)


def _fit_mask(mask: np.ndarray, small: np.ndarray) -> np.ndarray:
    return cv2.resize(mask, small.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
