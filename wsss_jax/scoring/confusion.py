"""Confusion matrices of label maps, and the scores they give (NumPy, on the host, int64).

C is the number of foreground classes, n = C + 1, index 0 is background, T a number of thresholds.
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
    """Pixel counts, rows by ground truth and columns by prediction.

    Args:
      prediction: class indices, 0 = background.
      truth: class indices; pixels that equal `ignore` are not counted.
      num_classes: C, foreground classes, so the matrix is [C + 1, C + 1].
      ignore: the ground truth's value for unlabeled pixels.

    Raises:
      ValueError: a counted pixel's prediction or truth is above C.
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
    """Confusion matrices of thresholded score maps, for all thresholds in one pass over the pixels.

    The published programs put the constant threshold into the map as channel 0 and take the argmax
    (SEAM and IRN alike, in float32). So a pixel is foreground where its greatest score is *above*
    the threshold, background where they are equal, and the lowest class wins among equal scores.

    The winning class does not depend on the threshold. One histogram over (truth, winner, number
    of thresholds below the winning score) holds all matrices; they follow by cumulative sums.

    Args:
      scores: one map per class of `keys`; compared in float32.
      keys: foreground classes 0…C−1, in any order; may be empty (then all is background).
      truth: class indices 0…C; pixels that equal `ignore` are not counted.
      thresholds: background scores, in any order.
      num_classes: C.
      ignore: the ground truth's value for unlabeled pixels.

    Raises:
      ValueError: a key or a counted pixel's truth is outside the classes.
    """
    n = num_classes + 1
    levels = np.asarray(thresholds, np.float32)
    order = np.argsort(levels, kind="stable")
    counted = truth != ignore
    truth = truth[counted]
    winner, best = strongest(scores, keys)
    # bins[i] = how many thresholds lie strictly below the pixel's best score.
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
    """Per pixel the class index (key + 1) of the greatest score, and that score in float32.

    The lowest class wins among equals. Without any map the index is 0 and the score −inf.
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
            raise ValueError(f"{name} has class index {values.max()}, expected at most {n - 1}")
    cell = truth.astype(np.int64) * n + prediction
    if bins is None:
        return np.bincount(cell, minlength=n * n).reshape(n, n)
    cell += bins * (n * n)
    return np.bincount(cell, minlength=num_bins * n * n).reshape(num_bins, n, n)


def confusion_scores(
    confusion: Int64[np.ndarray, "*batch n n"], protocol: Protocol = "strict"
) -> dict[str, Float64[np.ndarray, "..."]]:
    """The scores of one or more confusion matrices, as fractions 0…1.

    With TP, GT (row sums) and P (column sums) of a class, and union = GT + P − TP:

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

    The false-positive and false-negative rates are those of SEAM's and IRN's evaluations: shares
    of the union, not of the negatives. A ratio 0/0 (for ``iou``: a class in neither ground truth
    nor prediction) counts 0 under the ``strict`` protocol (SEAM); under ``present`` (IRN) it is
    NaN and left out of the mean. A mean over nothing is 0.
    """
    if protocol not in ("strict", "present"):
        raise ValueError(f"protocol {protocol!r}, expected 'strict' or 'present'")
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
