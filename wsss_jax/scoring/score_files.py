"""Scores prediction files against ground truth, for the evaluation stage and the command line.

T is the number of thresholds, which is 1 for masks. There are n = C + 1 classes, the background
first. Counts are those of `wsss_jax.scoring.confusion`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int64, UInt8

from wsss_jax.data.confidence import CERTAIN, read_confidence
from wsss_jax.data.formats.cam_files import read_cams
from wsss_jax.data.masks import decode_mask
from wsss_jax.data.threads import ahead, thread_count, thread_pool
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes
from wsss_jax.scoring.boundary_iou import boundary_counts, boundary_scores
from wsss_jax.scoring.confusion import (
    IGNORE,
    Protocol,
    class_counts,
    class_scores,
    threshold_counts,
)

Image = TypeVar("Image")

THRESHOLDS = tuple(i / 100 for i in range(100))
"""Background scores of the threshold curve. The published programs stop at 0.59, which is enough
for their maps. Maps that cover objects evenly, such as ECS-Net's, have their best threshold above.
"""

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Confidences from which on pixels are also scored separately; see `by_confidence`."""

_ZERO_AND_IGNORE = "0 and 255 only"

PER_CLASS = ("iou", "precision", "recall", "fp_rate", "fn_rate")


@dataclasses.dataclass(frozen=True)
class Counts:
    """The counts of one or more images by class, and `boundary_counts` for masks."""

    classes: Int64[np.ndarray, "t 3 n"]
    boundary: Int64[np.ndarray, "n 2"] | None = None

    def __add__(self, other: "Counts") -> "Counts":
        boundary = self.boundary
        if boundary is not None and other.boundary is not None:
            boundary = boundary + other.boundary
        return Counts(self.classes + other.classes, boundary)


def score_images(
    images: Iterable[Image],
    score_one: Callable[[Image], Counts],
    done: Callable[[Counts], None] = lambda counts: None,
) -> Counts:
    """Sums `score_one(image)` over all images in a thread pool, which works a few images ahead.

    Args:
      images: the ids or the positions of the images.
      score_one: a function that returns the counts of an image; it runs in threads.
      done: a function that gets the counts of every image in order, in the caller's thread.

    Raises:
      UserError: there are no images.
    """
    total = None
    with thread_pool() as pool:
        for (counts,) in ahead(pool, score_one, ([one] for one in images), 2 * thread_count()):
            total = counts if total is None else total + counts
            done(counts)
    if total is None:
        raise UserError("expected images to score, found an empty list: check the list")
    return total


def score_mask(
    path: Path,
    truth: UInt8[np.ndarray, "h w"],
    num_classes: int,
    ignore_as_background: bool = False,
    confidence: Path | None = None,
    foreground: int = 0,
) -> Counts:
    """Returns the counts of one mask file.

    If the file of its `confidence` is given, the counts of all pixels are followed by those
    of the pixels that reach each of `CONFIDENCES`. If `foreground` is above 0, this value and the
    index 1 both stand for the only class.

    Raises:
      UserError: the file is missing or damaged, its size differs from that of `truth`, or it has an
        index above C. The index 255 is refused too, unless `ignore_as_background` is set.
    """
    data = read_bytes(path)
    if foreground > 1 and decode_mask(data, str(path), None).max(initial=0) <= 1:
        foreground = 0  # a mask of indices
    prediction = decode_mask(data, str(path), num_classes, foreground)
    undecided = prediction == IGNORE
    if undecided.any():
        if num_classes == 1 and not foreground and not (prediction == 1).any():
            raise UserError(
                f"{path}: expected class indices 0 and 1, found {_ZERO_AND_IGNORE}: if {IGNORE}"
                f" marks the class, in the ground truth too, add --foreground {IGNORE}"
            )
        if not ignore_as_background:
            raise UserError(
                f"{path}: expected a class for every pixel, found {undecided.sum()} pixels of value"
                f" {IGNORE} (ignore): give them a class, or count them as background"
                " (--ignore-as-background, ignore_as_background=True)"
            )
        prediction[undecided] = 0
    check_size(path, prediction.shape, truth)
    counts = mask_counts(prediction, truth, num_classes)
    if confidence is None:
        return counts
    sure = read_confidence(confidence, truth.shape)
    parts = [
        class_counts(prediction, np.where(sure < least * CERTAIN, IGNORE, truth), num_classes)
        for least in CONFIDENCES
    ]
    return Counts(np.stack([counts.classes[0], *parts]), counts.boundary)


def check_scored(counts: Counts, where: str) -> None:
    """Refuses to score ground truth in which no pixel has a foreground class.

    Raises:
      UserError: there is none; the message names `where` the ground truth is from.
    """
    if not counts.classes[0, 1, 1:].any():
        raise UserError(
            f"expected pixels of classes in {where}, found only background and {IGNORE} (ignore):"
            f" check the masks and the list of classes; if {IGNORE} marks the only class, use"
            f" --foreground {IGNORE} (--config.data.foreground={IGNORE} in a recipe)"
        )


def mask_counts(
    prediction: UInt8[np.ndarray, "h w"], truth: UInt8[np.ndarray, "h w"], num_classes: int
) -> Counts:
    """Returns the counts of one label map; pixels where `truth` is 255 are not scored."""
    return Counts(
        class_counts(prediction, truth, num_classes)[None],
        boundary_counts(prediction, truth, num_classes),
    )


def score_cams(
    path: Path,
    truth: UInt8[np.ndarray, "h w"],
    num_classes: int,
    thresholds: Sequence[float],
) -> Counts:
    """Returns the counts of one CAM file at all thresholds.

    Raises:
      UserError: the file is missing or damaged, or its size differs from that of `truth`.
    """
    keys, cam = read_cams(path, num_classes)
    if len(keys) == 0:  # every pixel is background; a file without maps may not know its size
        cam = np.zeros((0, *truth.shape), np.float32)
    check_size(path, cam.shape[1:], truth)
    return Counts(threshold_counts(cam, keys, truth, thresholds, num_classes))


def check_size(path: Path, shape: tuple[int, ...], truth: UInt8[np.ndarray, "h w"]) -> None:
    """Raises UserError if the shape of the prediction `path` differs from that of the truth."""
    if shape != truth.shape:
        (height, width), (true_height, true_width) = shape, truth.shape
        raise UserError(
            f"{path}: expected {true_width}×{true_height} pixels like the ground truth, found"
            f" {width}×{height}: make the prediction in the size of the image"
        )


def summary(
    counts: Int64[np.ndarray, "3 n"],
    names: Sequence[str],
    protocol: Protocol,
    boundary: Int64[np.ndarray, "n 2"] | None = None,
) -> dict[str, Any]:
    """Returns the scores of the counts as JSON: fractions 0…1, or None if undefined.

    Args:
      counts: pixel counts by class.
      names: the names of the n classes, the background first.
      protocol: the protocol for absent classes; see `class_scores`.
      boundary: sums of `boundary_counts`, which add ``boundary_miou`` and, per class,
        ``boundary_iou``.
    """
    scores = class_scores(counts, protocol)
    per_class = {
        name: {key: _number(scores[key][index]) for key in PER_CLASS}
        for index, name in enumerate(names)
    }
    outline = {}
    if boundary is not None:
        iou, mean = boundary_scores(boundary, protocol)
        by_name = {name: _number(value) for name, value in zip(names, iou, strict=True)}
        outline = {"boundary_miou": mean, "boundary_iou": by_name}
    return outline | {
        "miou": float(scores["miou"]),
        "iou": {name: values["iou"] for name, values in per_class.items()},
        "precision": float(scores["mean_precision"]),
        "recall": float(scores["mean_recall"]),
        "pixel_accuracy": float(scores["pixel_accuracy"]),
        "per_class": per_class,
    }


def curve(
    counts: Int64[np.ndarray, "t 3 n"], thresholds: Sequence[float], protocol: Protocol
) -> dict[str, Any]:
    """Returns scores over thresholds as JSON; the lowest best mIoU gives `best_threshold`."""
    scores = class_scores(counts, protocol)
    return {
        "thresholds": list(thresholds),
        "miou_curve": scores["miou"].tolist(),
        "precision_curve": scores["mean_precision"].tolist(),
        "recall_curve": scores["mean_recall"].tolist(),
        "best_threshold": thresholds[int(scores["miou"].argmax())],
    }


def by_confidence(
    counts: Int64[np.ndarray, "t 3 n"], protocol: Protocol
) -> list[dict[str, float | None]]:
    """Returns the scores of the pixels above each confidence, from the counts of `score_mask`.

    Returns:
      JSON for each of `CONFIDENCES`: the confidence ``least``, the share ``kept`` of the scored
      pixels that reach it, and their ``miou``, which is None if there are no such pixels.
    """
    every, *parts = counts
    scored = max(int(every[1].sum()), 1)
    return [
        {
            "least": least,
            "kept": int(part[1].sum()) / scored,
            "miou": float(class_scores(part, protocol)["miou"]) if part.any() else None,
        }
        for least, part in zip(CONFIDENCES, parts, strict=True)
    ]


def _number(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
