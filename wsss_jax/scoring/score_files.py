"""Scores prediction files against ground truth, for the evaluation stage and the command line.

T is the number of thresholds, which is 1 for masks. There are n = C + 1 classes, the background
first.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from wsss_jax.data.confidence import CERTAIN, read_confidence
from wsss_jax.data.formats.cam_files import read_cams
from wsss_jax.data.images import decode_mask
from wsss_jax.data.threads import thread_pool
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes
from wsss_jax.scoring.boundary_iou import boundary_counts, boundary_scores
from wsss_jax.scoring.confusion import (
    IGNORE,
    Protocol,
    confusion_matrix,
    confusion_scores,
    threshold_confusions,
)

THRESHOLDS = tuple(i / 100 for i in range(100))
"""Background scores of the threshold curve. The published programs stop at 0.59, which is enough
for their maps. Maps that cover objects evenly, such as ECS-Net's, have their best threshold above.
"""

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Confidences from which on pixels are also scored separately; see `by_confidence`."""

PER_CLASS = ("iou", "precision", "recall", "fp_rate", "fn_rate")


@dataclasses.dataclass(frozen=True)
class Counts:
    """The counts of one image: its confusion matrices, and `boundary_counts` for masks."""

    confusion: Int64[np.ndarray, "t n n"]
    boundary: Int64[np.ndarray, "n 2"] | None = None


@dataclasses.dataclass(frozen=True)
class Scored:
    """The counts over all images, and the mIoU of each image at each threshold.

    The mIoU of an image is the mean over the classes in its ground truth or its prediction,
    whatever the protocol is. Under `strict`, a perfect mask of two classes would only get 2/21.
    """

    confusion: Int64[np.ndarray, "t n n"]
    boundary: Int64[np.ndarray, "n 2"] | None
    image_miou: dict[str, Float64[np.ndarray, " t"]]


def score_images(
    ids: Sequence[str],
    score_one: Callable[[str], Counts],
    done: Callable[[], None] = lambda: None,
) -> Scored:
    """Sums `score_one(id)` over all ids in a thread pool and calls `done()` after every image.

    Raises:
      UserError: there are no ids.
    """
    if not ids:
        raise UserError("expected images to score, found an empty list: check the list")

    image_miou = {}
    confusion = boundary = None
    with thread_pool() as pool:
        for image_id, counts in zip(ids, pool.map(score_one, ids), strict=True):
            confusion = counts.confusion if confusion is None else confusion + counts.confusion
            if counts.boundary is not None:
                boundary = counts.boundary if boundary is None else boundary + counts.boundary
            image_miou[image_id] = confusion_scores(counts.confusion, "present")["miou"]
            done()
    assert confusion is not None
    return Scored(confusion, boundary, image_miou)


def score_mask(
    path: Path,
    truth: UInt8[np.ndarray, "h w"],
    num_classes: int,
    ignore_as_background: bool = False,
    confidence: Path | None = None,
) -> Counts:
    """Returns the counts of one mask file.

    If the file of its `confidence` is given, the confusion matrix of all pixels is followed by
    those of the pixels that reach each of `CONFIDENCES`.

    Raises:
      UserError: the file is missing or damaged, its size differs from that of `truth`, or it has an
        index above C. The index 255 is refused too, unless `ignore_as_background` is set.
    """
    prediction = decode_mask(read_bytes(path), str(path), num_classes)
    undecided = prediction == IGNORE
    if undecided.any():
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
        confusion_matrix(prediction, np.where(sure < least * CERTAIN, IGNORE, truth), num_classes)
        for least in CONFIDENCES
    ]
    return Counts(np.stack([counts.confusion[0], *parts]), counts.boundary)


def mask_counts(
    prediction: UInt8[np.ndarray, "h w"], truth: UInt8[np.ndarray, "h w"], num_classes: int
) -> Counts:
    """Returns the counts of one label map; pixels where `truth` is 255 are not scored."""
    return Counts(
        confusion_matrix(prediction, truth, num_classes)[None],
        boundary_counts(prediction, truth, num_classes),
    )


def score_cams(
    path: Path,
    truth: UInt8[np.ndarray, "h w"],
    num_classes: int,
    thresholds: Sequence[float],
) -> Counts:
    """Returns the confusion matrices of one CAM file at all thresholds.

    Raises:
      UserError: the file is missing or damaged, or its size differs from that of `truth`.
    """
    keys, cam = read_cams(path, num_classes)
    if len(keys) == 0:  # every pixel is background; a file without maps may not know its size
        cam = np.zeros((0, *truth.shape), np.float32)
    check_size(path, cam.shape[1:], truth)
    return Counts(threshold_confusions(cam, keys, truth, thresholds, num_classes))


def check_size(path: Path, shape: tuple[int, ...], truth: UInt8[np.ndarray, "h w"]) -> None:
    """Raises UserError if the shape of the prediction `path` differs from that of the truth."""
    if shape != truth.shape:
        (height, width), (true_height, true_width) = shape, truth.shape
        raise UserError(
            f"{path}: expected {true_width}×{true_height} pixels like the ground truth, found"
            f" {width}×{height}: make the prediction in the size of the image"
        )


def summary(
    confusion: Int64[np.ndarray, "n n"],
    names: Sequence[str],
    protocol: Protocol,
    boundary: Int64[np.ndarray, "n 2"] | None = None,
) -> dict[str, Any]:
    """Returns the scores of one confusion matrix as JSON: fractions 0…1, or None if undefined.

    Args:
      confusion: pixel counts with the ground truth in the rows.
      names: the names of the n classes, the background first.
      protocol: the protocol for absent classes; see `confusion_scores`.
      boundary: sums of `boundary_counts`, which add ``boundary_miou`` and, per class,
        ``boundary_iou``.
    """
    scores = confusion_scores(confusion, protocol)
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
    confusions: Int64[np.ndarray, "t n n"], thresholds: Sequence[float], protocol: Protocol
) -> dict[str, Any]:
    """Returns scores over thresholds as JSON; the lowest best mIoU gives `best_threshold`."""
    scores = confusion_scores(confusions, protocol)
    return {
        "thresholds": list(thresholds),
        "miou_curve": scores["miou"].tolist(),
        "precision_curve": scores["mean_precision"].tolist(),
        "recall_curve": scores["mean_recall"].tolist(),
        "best_threshold": thresholds[int(scores["miou"].argmax())],
    }


def by_confidence(
    confusions: Int64[np.ndarray, "t n n"], protocol: Protocol
) -> list[dict[str, float | None]]:
    """Returns the scores of the pixels above each confidence, from the matrices of `score_mask`.

    Returns:
      JSON for each of `CONFIDENCES`: the confidence ``least``, the share ``kept`` of the scored
      pixels that reach it, and their ``miou``, which is None if there are no such pixels.
    """
    every, *parts = confusions
    scored = max(int(every.sum()), 1)
    return [
        {
            "least": least,
            "kept": int(part.sum()) / scored,
            "miou": float(confusion_scores(part, protocol)["miou"]) if part.any() else None,
        }
        for least, part in zip(CONFIDENCES, parts, strict=True)
    ]


def _number(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
