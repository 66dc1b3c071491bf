"""A criterion that needs no labels: how well a threshold on scores separates an image's colors."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Float64, UInt8

_BLUR = 1.5  # pixels; removes sensor noise and compression noise from the colors


def color_separation(
    image: UInt8[np.ndarray, "h w 3"],
    score: Float[np.ndarray, "h w"],
    thresholds: Sequence[float],
) -> Float64[np.ndarray, " t"]:
    """Returns the share of an image's color variance that each threshold explains.

    This is Otsu's criterion (IEEE Trans. SMC 1979) on CIELAB colors. With w the share of pixels
    whose score is above the threshold and m₁, m₀ the mean colors above and below it, it is
    ``w·(1 − w)·‖m₁ − m₀‖² / variance``. Otsu thresholds the colors themselves. Here the regions
    come from the scores, so the criterion is largest where their outline follows the image's own.

    Args:
      image: the image in RGB.
      score: the largest foreground score of each pixel.
      thresholds: background scores, in ascending order.

    Returns:
      A value in 0…1 for each threshold. It is 0 where one side is empty or where the whole image
      has one color.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    colors = cv2.GaussianBlur(lab, (0, 0), _BLUR).reshape(-1, 3).astype(np.float64)
    colors -= colors.mean(0)
    total = np.square(colors).sum() / len(colors)
    # Bin i holds the scores above i thresholds, so sums from the top give what lies above each.
    bins = np.searchsorted(np.asarray(thresholds, np.float32), score.ravel(), side="left")
    size = len(thresholds) + 1
    count = np.bincount(bins, minlength=size)
    sums = np.stack([np.bincount(bins, colors[:, c], minlength=size) for c in range(3)])
    above = count[::-1].cumsum()[::-1][1:].astype(np.float64)
    mass = sums[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
    share = above / len(colors)
    # The colors have mean 0: m₀ = −m₁·w/(1 − w), so w·(1 − w)·‖m₁ − m₀‖² = w/(1 − w)·‖m₁‖².
    mean = np.divide(mass, above, out=np.zeros_like(mass), where=above > 0)
    between = np.divide(share, 1 - share, out=np.zeros_like(share), where=share < 1)
    if total <= 1e-9:
        return np.zeros(len(thresholds))
    return between * np.square(mean).sum(0) / total
