"""Counts of pixels by class, and the scores they give (NumPy, int64, on the host).

C is the number of foreground classes and n = C + 1, where index 0 is the background. T is the
number of thresholds. The counts of a class are the sums of the confusion matrix that its scores
need: the true positives, the pixels of the class in the ground truth, and those in the prediction.
So they need 3·n numbers, where a matrix has n².
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int, Int64, UInt8, UInt16

from wsss_jax.data.masks import IGNORE

Protocol = Literal["strict", "present"]
LabelMap = UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]


def class_counts(
    prediction: LabelMap, truth: LabelMap, num_classes: int, ignore: int = IGNORE
) -> Int64[np.ndarray, "3 n"]:
    """Counts the true positives, the ground truth and the prediction of every class, in pixels.

    Args:
      prediction: class indices, where 0 is background.
      truth: class indices; pixels that equal `ignore` are not counted.
      num_classes: the number of foreground classes C.
      ignore: the value of unlabeled pixels in the ground truth.

    Raises:
      ValueError: the prediction or the ground truth of a counted pixel is above C.
    """
    counted = truth != ignore
    truth, prediction = truth[counted], prediction[counted]
    n = num_classes + 1
    _check_range(truth, prediction, n)
    parts = (truth[truth == prediction], truth, prediction)
    return np.stack([np.bincount(part, minlength=n) for part in parts])


def threshold_counts(
    scores: Float[np.ndarray, "k h w"],
    keys: Int[np.ndarray, " k"],
    truth: LabelMap,
    thresholds: Sequence[float] | Float[np.ndarray, " t"],
    num_classes: int,
    ignore: int = IGNORE,
) -> Int64[np.ndarray, "t 3 n"]:
    """Returns the counts of score maps at all thresholds, in one pass over the pixels.

    The programs of SEAM and IRN add the threshold to the maps as a constant channel 0 and take the
    argmax in float32. So a pixel is foreground where its largest score is *above* the threshold and
    background where the two are equal, and the lowest class wins among equal scores.

    The winning class does not depend on the threshold. Histograms of the number of thresholds below
    the winning score contain the counts at all thresholds, which follow from cumulative sums.

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
    levels = np.asarray(thresholds, np.float32)
    order = np.argsort(levels, kind="stable")
    counted = truth != ignore
    truth = truth[counted]
    winner, best = strongest(scores, keys)
    winner = winner[counted]
    classes = np.sort(keys) + 1
    _check_range(truth, classes, num_classes + 1)
    # bins[i] is the number of thresholds that lie strictly below the pixel's best score.
    bins = np.searchsorted(levels[order], best[counted], side="left")
    num_bins = len(levels) + 1
    counts = np.zeros((len(levels), 3, num_classes + 1), np.int64)
    counts[:, 1] = np.bincount(truth, minlength=num_classes + 1)
    for row, of_class, of_background in ((0, winner == truth, truth == 0), (2, ..., ...)):
        below = np.bincount(bins[of_background], minlength=num_bins).cumsum()
        counts[order, row, 0] = below[:-1]
        if len(classes):
            cell = bins[of_class] * len(classes) + np.searchsorted(classes, winner[of_class])
            won = np.bincount(cell, minlength=num_bins * len(classes)).reshape(-1, len(classes))
            counts[order[:, None], row, classes] = won.sum(0) - won.cumsum(0)[:-1]
    return counts


def strongest(
    scores: Float[np.ndarray, "k h w"], keys: Int[np.ndarray, " k"]
) -> tuple[LabelMap, Float[np.ndarray, "h w"]]:
    """Returns, per pixel, the class index (key + 1) of the largest score, and the score in float32.

    Indices have 8 bits, or 16 if one of `keys` needs them. The lowest class wins among equal
    scores. If there are no maps, the index is 0 and the score is −inf.
    """
    if len(keys) == 0:
        shape = scores.shape[1:]
        return np.zeros(shape, np.uint8), np.full(shape, -np.inf, np.float32)
    ascending = np.argsort(keys, kind="stable")
    scores = np.asarray(scores[ascending], np.float32)
    classes = keys[ascending] + 1
    classes = classes.astype(np.min_scalar_type(int(classes[-1])))
    return classes[scores.argmax(0)], scores.max(0)


def _check_range(truth: np.ndarray, prediction: np.ndarray, n: int) -> None:
    for name, values in (("truth", truth), ("prediction", prediction)):
        if values.size and values.max() >= n:
            raise ValueError(f"expected {name} up to class index {n - 1}, found {values.max()}")


def class_scores(
    counts: Int64[np.ndarray, "*batch 3 n"], protocol: Protocol = "strict"
) -> dict[str, Float64[np.ndarray, "..."]]:
    """Computes the scores of one or more counts, as fractions 0…1.

    TP, GT and P are the counts of a class, and union = GT + P − TP:

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
    true_positive, truth, predicted = np.moveaxis(counts, -2, 0).astype(np.float64)
    union = truth + predicted - true_positive
    undefined = 0.0 if protocol == "strict" else np.nan
    result = {
        "iou": _ratio(true_positive, union, undefined),
        "precision": _ratio(true_positive, predicted, undefined),
        "recall": _ratio(true_positive, truth, undefined),
        "fp_rate": _ratio(predicted - true_positive, union, undefined),
        "fn_rate": _ratio(truth - true_positive, union, undefined),
    }
    result["miou"] = _mean(result["iou"])
    result["mean_precision"] = _mean(result["precision"])
    result["mean_recall"] = _mean(result["recall"])
    result["pixel_accuracy"] = np.asarray(true_positive.sum(-1) / np.maximum(truth.sum(-1), 1))
    return result


def image_miou(counts: Int64[np.ndarray, "*batch 3 n"]) -> Float64[np.ndarray, "*batch"]:
    """Returns the mIoU of an image over the classes in its ground truth or its prediction.

    This is the `miou` of the protocol ``present``, whatever the protocol of the data set is. Under
    ``strict``, a perfect mask of two classes would only get 2/21.
    """
    true_positive, truth, predicted = np.moveaxis(counts, -2, 0).astype(np.float64)
    return _mean(_ratio(true_positive, truth + predicted - true_positive, np.nan))


def _ratio(part: np.ndarray, whole: np.ndarray, undefined: float) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(whole, undefined), where=whole > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(-1)
    return np.asarray(total / np.maximum(defined.sum(-1), 1))
