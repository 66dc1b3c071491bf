"""Confusion matrices of label maps and the scores they give (NumPy, int64, on the host).

C is the number of foreground classes and n = C + 1, where index 0 is the background. T is the
number of thresholds.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int, Int64, UInt8

IGNORE = 255
Protocol = Literal["strict", "present"]


def confusion_matrix(
    prediction: UInt8[np.ndarray, "h w"],
    truth: UInt8[np.ndarray, "h w"],
    num_classes: int,
    ignore: int = IGNORE,
) -> Int64[np.ndarray, "n n"]:
    """Counts pixels by ground truth (rows) and prediction (columns).

    Args:
      prediction: class indices, where 0 is background.
      truth: class indices; pixels that equal `ignore` are not counted.
      num_classes: the number of foreground classes C; the matrix is [C + 1, C + 1].
      ignore: the value of unlabeled pixels in the ground truth.

    Raises:
      ValueError: the prediction or the ground truth of a counted pixel is above C.
    """
    n = num_classes + 1
    counted = truth != ignore
    return _histogram(truth[counted], prediction[counted], n)


def threshold_confusions(
    scores: Float[np.ndarray, "k h w"],
    keys: Int[np.ndarray, " k"],
    truth: UInt8[np.ndarray, "h w"],
    thresholds: Sequence[float] | Float[np.ndarray, " t"],
    num_classes: int,
    ignore: int = IGNORE,
) -> Int64[np.ndarray, "t n n"]:
    """Returns the confusion matrices of score maps at all thresholds, in one pass over the pixels.

    The programs of SEAM and IRN add the threshold to the maps as a constant channel 0 and take the
    argmax in float32. So a pixel is foreground where its largest score is *above* the threshold and
    background where the two are equal, and the lowest class wins among equal scores.

    The winning class does not depend on the threshold. One histogram over (truth, winner, number of
    thresholds below the winning score) contains all matrices, which follow from cumulative sums.

    Args:
      scores: one map per class of `keys`; they are compared in float32.
      keys: foreground classes 0…C−1, in any order. If there are none, every pixel is background.
      truth: class indices 0…C; pixels that equal `ignore` are not counted.
      thresholds: background scores, in any order.
      num_classes: the number of foreground classes C.
      ignore: the value of unlabeled pixels in the ground truth.

    Raises:
      ValueError: a key, or the ground truth of a counted pixel, is not one of the classes.
    """
    n = num_classes + 1
    levels = np.asarray(thresholds, np.float32)
    order = np.argsort(levels, kind="stable")
    counted = truth != ignore
    truth = truth[counted]
    winner, best = strongest(scores, keys)
    # bins[i] is the number of thresholds that lie strictly below the pixel's best score.
    bins = np.searchsorted(levels[order], best[counted], side="left")
    counts = _histogram(truth, winner[counted], n, bins, len(levels) + 1)
    below = np.cumsum(counts, axis=0)[:-1]  # [T, n, n]: score not above the threshold
    matrices = counts.sum(0) - below
    matrices[:, :, 0] += below.sum(-1)
    result = np.empty_like(matrices)
    result[order] = matrices
    return result


def strongest(
    scores: Float[np.ndarray, "k h w"], keys: Int[np.ndarray, " k"]
) -> tuple[UInt8[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Returns, per pixel, the class index (key + 1) of the largest score, and the score in float32.

    The lowest class wins among equal scores. If there are no maps, the index is 0 and the score is
    −inf.
    """
    if len(keys) == 0:
        shape = scores.shape[1:]
        return np.zeros(shape, np.uint8), np.full(shape, -np.inf, np.float32)
    ascending = np.argsort(keys, kind="stable")
    scores = np.asarray(scores[ascending], np.float32)
    classes = (keys[ascending] + 1).astype(np.uint8)
    return classes[scores.argmax(0)], scores.max(0)


def _histogram(
    truth: UInt8[np.ndarray, " p"],
    prediction: UInt8[np.ndarray, " p"],
    n: int,
    bins: Int[np.ndarray, " p"] | None = None,
    num_bins: int = 1,
) -> Int64[np.ndarray, "..."]:
    for name, values in (("truth", truth), ("prediction", prediction)):
        if values.size and values.max() >= n:
            raise ValueError(f"expected {name} up to class index {n - 1}, found {values.max()}")
    cell = truth.astype(np.int64) * n + prediction
    if bins is None:
        return np.bincount(cell, minlength=n * n).reshape(n, n)
    cell += bins * (n * n)
    return np.bincount(cell, minlength=num_bins * n * n).reshape(num_bins, n, n)


def confusion_scores(
    confusion: Int64[np.ndarray, "*batch n n"], protocol: Protocol = "strict"
) -> dict[str, Float64[np.ndarray, "..."]]:
    """Computes the scores of one or more confusion matrices, as fractions 0…1.

    TP, GT (row sums) and P (column sums) are the counts of a class, and union = GT + P − TP:

    =================  ============================================================
    ``iou``            TP / union, per class [*batch, n]
    ``precision``      TP / P, per class
    ``recall``         TP / GT, per class
    ``fp_rate``        (P − TP) / union, per class: iou + fp_rate + fn_rate = 1
    ``fn_rate``        (GT − TP) / union, per class
    ``miou``           mean of ``iou`` over the classes [*batch]
    ``mean_precision`` mean of ``precision``
    ``mean_recall``    mean of ``recall``
    ``pixel_accuracy`` share of counted pixels with the right class
    =================  ============================================================

    The false-positive and false-negative rates are those of SEAM's and IRN's evaluations, which are
    shares of the union and not of the negatives. A ratio 0/0 counts as 0 under the ``strict``
    protocol (SEAM). Under ``present`` (IRN) it is NaN and left out of the mean. For ``iou``, this
    concerns classes that are neither in the ground truth nor in the prediction. A mean over no
    classes is 0.

    Raises:
      ValueError: `protocol` is neither ``strict`` nor ``present``.
    """
    if protocol not in ("strict", "present"):
        raise ValueError(f"expected protocol 'strict' or 'present', found {protocol!r}")
    true_positive = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    truth = confusion.sum(-1).astype(np.float64)
    predicted = confusion.sum(-2).astype(np.float64)
    union = truth + predicted - true_positive
    undefined = 0.0 if protocol == "strict" else np.nan

    def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full_like(whole, undefined), where=whole > 0)

    def mean(values: np.ndarray) -> np.ndarray:
        defined = ~np.isnan(values)
        total = np.where(defined, values, 0.0).sum(-1)
        return np.asarray(total / np.maximum(defined.sum(-1), 1))

    result = {
        "iou": ratio(true_positive, union),
        "precision": ratio(true_positive, predicted),
        "recall": ratio(true_positive, truth),
        "fp_rate": ratio(predicted - true_positive, union),
        "fn_rate": ratio(truth - true_positive, union),
    }
    result["miou"] = mean(result["iou"])
    result["mean_precision"] = mean(result["precision"])
    result["mean_recall"] = mean(result["recall"])
    result["pixel_accuracy"] = np.asarray(true_positive.sum(-1) / np.maximum(truth.sum(-1), 1))
    return result
