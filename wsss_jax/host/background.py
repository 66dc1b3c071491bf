"""The background that score maps leave: (1 − max)^α, as PSA and SEAM have it."""

import math

import numpy as np
from jaxtyping import Float, Float32


def power_background(
    strongest: Float[np.ndarray, "h w"], alpha: float | int
) -> Float[np.ndarray, "h w"]:
    """``(1 − strongest)^alpha`` of the greatest score of each pixel, which is cut to 0…1."""
    return np.power(1 - np.clip(strongest, 0, 1), np.float32(alpha))


def with_background(
    scores: Float32[np.ndarray, "k h w"], alpha: float | int
) -> Float[np.ndarray, "labels h w"]:
    """The scores behind their background (1 − max)^alpha, which is 1 where there are none."""
    return np.concatenate([power_background(scores.max(0, initial=0), alpha)[None], scores])


def alpha_of_threshold(threshold: float) -> float:
    """The α whose background equals a score of `threshold`: (1 − threshold)^α = threshold.

    Scores above it exceed their background, those below do not; `threshold` lies between 0 and 1.
    """
    return math.log(threshold) / math.log1p(-threshold)
