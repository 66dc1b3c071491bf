"""Scores of prediction files against ground truth: what the stage and the command line share.

T is the number of thresholds (1 for masks), n = C + 1 classes with background first.
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
for their maps; maps that cover objects evenly, such as ECS-Net's, have their best above."""

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""How sure pixels have to be that are scored apart, see `by_confidence`."""

PER_CLASS = ("iou", "precision", "recall", "fp_rate", "fn_rate")


@dataclasses.dataclass(frozen=True)
class Counts:
    """What is counted in one image: confusion matrices, and for masks `boundary_counts`."""

    confusion: Int64[np.ndarray, "t n n"]
    boundary: Int64[np.ndarray, "n 2"] | None = None


@dataclasses.dataclass(frozen=True)
class Scored:
    """The counts over all images, and each image's mIoU at each threshold.

    An image's mIoU is the mean over the classes in its ground truth or its prediction, whatever
    the protocol: under `strict` a perfect mask of two classes would have 2/21.
    """

    confusion: Int64[np.ndarray, "t n n"]
    boundary: Int64[np.ndarray, "n 2"] | None
    image_miou: dict[str, Float64[np.ndarray, " t"]]


def score_images(
    ids: Sequence[str],
    score_one: Callable[[str], Counts],
    done: Callable[[], None] = lambda: None,
) -> Scored:
    """Sums `score_one(id)` over a thread pool; `done()` is called after every image.

    Raises:
      UserError: there are no ids.
    """
    if not ids:
        raise UserError("expected images to score, found an empty list; check the list")

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
    """The counts of one mask file.

    With a file of its `confidence`, the confusion matrices of the pixels that are at least as sure
    as each of `CONFIDENCES` follow that of all pixels.

    Raises:
      UserError: missing or damaged file, another size than `truth`, an index above C, or 255,
        unless `ignore_as_background` turns it into background.
    """
    prediction = decode_mask(read_bytes(path), str(path), num_classes)
    undecided = prediction == IGNORE
    if undecided.any():
        if not ignore_as_background:
            raise UserError(
                f"{path}: expected a class for every pixel, found {undecided.sum()} pixels of"
                f" {IGNORE} (ignore); decide them, or have them count as background"
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
    """The counts of one label map; `truth` is 255 where nothing is scored."""
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
    """The confusion matrices of one CAM file at all thresholds.

    Raises:
      UserError: missing or damaged file, or another size than `truth`.
    """
    keys, cam = read_cams(path, num_classes)
    if len(keys) == 0:  # all background; an empty file may not know the image's size
        cam = np.zeros((0, *truth.shape), np.float32)
    check_size(path, cam.shape[1:], truth)
    return Counts(threshold_confusions(cam, keys, truth, thresholds, num_classes))


def check_size(path: Path, shape: tuple[int, ...], truth: UInt8[np.ndarray, "h w"]) -> None:
    """Raises UserError when the prediction `path` of `shape` is not as large as the truth."""
    if shape != truth.shape:
        (height, width), (true_height, true_width) = shape, truth.shape
        raise UserError(
            f"{path}: expected {true_width}×{true_height} pixels as the ground truth has, found"
            f" {width}×{height}; predictions must have the image's size"
        )


def summary(
    confusion: Int64[np.ndarray, "n n"],
    names: Sequence[str],
    protocol: Protocol,
    boundary: Int64[np.ndarray, "n 2"] | None = None,
) -> dict[str, Any]:
    """The scores of one confusion matrix as JSON: fractions 0…1, None where undefined.

    Args:
      confusion: rows by ground truth.
      boundary: see `boundary_counts`; adds ``boundary_miou`` and ``boundary_iou`` per class.
      names: n class names, background first.
      protocol: see `confusion_scores`.
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
    """Scores over thresholds as JSON; `best_threshold` is the lowest with the greatest mIoU."""
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
    """How good the surer pixels are, from the matrices of `score_mask`, for JSON.

    Returns:
      For each of `CONFIDENCES`, ``least``: ``kept``, the share of the scored pixels that are so
      sure, and their ``miou``, None where there are none.
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
