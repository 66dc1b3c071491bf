"""The background score (1 − max)^α of score maps, as in PSA and SEAM."""

import math

import numpy as np
from jaxtyping import Float, Float32


def power_background(
    strongest: Float[np.ndarray, "h w"], alpha: float | int
) -> Float[np.ndarray, "h w"]:
    """Computes ``(1 − strongest)^alpha`` from each pixel's largest score, clipped to 0…1."""
    return np.power(1 - np.clip(strongest, 0, 1), np.float32(alpha))


def with_background(
    scores: Float32[np.ndarray, "k h w"], alpha: float | int
) -> Float[np.ndarray, "labels h w"]:
    """Prepends the background (1 − max)^alpha to scores; without any scores it is 1."""
    return np.concatenate([power_background(scores.max(0, initial=0), alpha)[None], scores])


def alpha_of_threshold(threshold: float) -> float:
    """Returns the α whose background equals a score of `threshold`.

    This is the solution of (1 − threshold)^α = threshold, with `threshold` between 0 and 1. Scores
    above the threshold exceed their background, and scores below it do not.
    """
    return math.log(threshold) / math.log1p(-threshold)
