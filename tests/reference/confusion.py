"""Confusion matrices, counted pixel by pixel, and the scores that they give."""

from typing import Any

import numpy as np

from wsss_jax.scoring.confusion import Protocol, class_scores


def confusion_matrix(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts pixels by ground truth (rows) and prediction (columns), except where truth is 255."""
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if t != 255:
            matrix[t, p] += 1
    return matrix


def counts_of(confusion: np.ndarray) -> np.ndarray:
    """The diagonal, the row sums and the column sums of one or more matrices."""
    diagonal = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.stack([diagonal, confusion.sum(-1), confusion.sum(-2)], -2)


def confusion_scores(confusion: np.ndarray, protocol: Protocol = "strict") -> dict[str, Any]:
    """The scores of one or more matrices."""
    return class_scores(counts_of(confusion), protocol)
