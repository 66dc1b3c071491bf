"""Chooses which clusters of features are prototypes of a class, and which are its context."""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

_EQUAL = 1e-6


def probabilities(
    centers: Float[np.ndarray, "n d"], kernel: Float[np.ndarray, "d c"], label: int
) -> Float[np.ndarray, " n"]:
    """Returns how likely centers show the class `label`, by a classifier without bias."""
    logits = centers.astype(np.float64) @ kernel.astype(np.float64)
    return softmax(logits, axis=1)[:, label]


def prototypes(probability: Float[np.ndarray, " n"], least: float) -> Int[np.ndarray, " k"]:
    """Returns the centers inside the maps that stand for the class: those above `least`.

    If there are none, it is the most likely one, as in LPCAM's program for COCO; the one for VOC
    stops there.
    """
    chosen = np.flatnonzero(probability > least)
    if len(chosen) or not len(probability):
        return chosen
    return np.flatnonzero(probability > probability.max() - _EQUAL)


def contexts(
    probability: Float[np.ndarray, " n"], limits: tuple[float, float]
) -> Int[np.ndarray, " k"]:
    """Returns the centers outside the maps that the classifier takes for the class nonetheless."""
    low, high = limits
    return np.flatnonzero((low < probability) & (probability < high))
