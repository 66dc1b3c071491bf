"""Boundary IoU, which measures how well outlines agree (NumPy and OpenCV, on the host).

Source: Cheng et al., *Boundary IoU* (CVPR 2021, arXiv 2103.16562), equation 2. It is computed per
class and summed over a data set, as mIoU is.
"""

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from wsss_jax.data.masks import IGNORE
from wsss_jax.scoring.confusion import Protocol

BAND = 0.02
"""The width of the boundary region as a share of the image's diagonal, as in the paper."""


def boundary_counts(
    prediction: UInt8[np.ndarray, "h w"],
    truth: UInt8[np.ndarray, "h w"],
    num_classes: int,
    ignore: int = IGNORE,
) -> Int64[np.ndarray, "n 2"]:
    """Counts, per class, the pixels in the intersection and in the union of the boundary regions.

    The boundary region of a class consists of its pixels that are at most `BAND` away from its
    outline; the edge of the image is an outline too. Pixels without ground truth, which VOC has
    around every object, are first removed from both label maps, so that a perfect prediction
    scores 1.

    Args:
      prediction: class indices, where 0 is background.
      truth: class indices, or `ignore` where a pixel has no ground truth.
      num_classes: the number of foreground classes C; n = C + 1.
      ignore: the value that marks pixels without ground truth.
    """
    counts = np.zeros((num_classes + 1, 2), np.int64)
    width = max(round(BAND * math.hypot(*truth.shape)), 1)
    known = truth != ignore
    present = np.union1d(np.unique(truth[known]), np.unique(prediction[known]))
    for index in present:
        first = _inner_band((prediction == index) & known, width)
        second = _inner_band((truth == index) & known, width)
        counts[index] = (first & second).sum(), (first | second).sum()
    return counts


def _inner_band(mask: Bool[np.ndarray, "h w"], width: int) -> Bool[np.ndarray, "h w"]:
    kernel = np.ones((3, 3), np.uint8)
    inside = cv2.erode(
        mask.astype(np.uint8),
        kernel,
        iterations=width,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,  # pyright: ignore[reportArgumentType]
    )
    return mask & (inside == 0)


def boundary_scores(
    counts: Int64[np.ndarray, "n 2"], protocol: Protocol = "strict"
) -> tuple[Float64[np.ndarray, " n"], float]:
    """Returns the boundary IoU per class and its mean, as fractions 0…1.

    Args:
      counts: sums of `boundary_counts` over the images.
      protocol: absent classes count as 0 under ``strict``; under ``present`` they are NaN and left
        out of the mean, as in `class_scores`.
    """
    undefined = 0.0 if protocol == "strict" else np.nan
    full = np.full(len(counts), undefined)
    iou = np.divide(counts[:, 0], counts[:, 1], out=full, where=counts[:, 1] > 0)
    defined = ~np.isnan(iou)
    return iou, float(iou[defined].sum() / max(int(defined.sum()), 1))
