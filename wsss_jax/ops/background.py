"""The background that score maps leave: (1 − max)^α, as PSA and SEAM have it."""

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
