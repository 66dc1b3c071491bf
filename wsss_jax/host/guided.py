"""Upsamples the scores of a photograph to its full size, guided by its colors.

Source: He and Sun: Fast Guided Filter (arXiv 1505.00996, 2015). Scores are linear functions of the
image's brightness in small windows. Their coefficients are computed at the low resolution and
upsampled, so edges of the result follow those of the image, and memory does not depend on the
number of labels.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float32, UInt8, UInt16

_RADIUS = 2  # pixels of the low resolution
_EPSILON = 1e-4  # brightness 0…1, squared


def upsampled_scores(
    scores: Float32[np.ndarray, "k h w"], image: UInt8[np.ndarray, "H W 3"]
) -> Iterator[Float32[np.ndarray, "H W"]]:
    """Yields each map in the size of `image`.

    Args:
      scores: the maps, at any resolution.
      image: the image in RGB at full resolution.
    """
    (height, width), size = scores.shape[1:], image.shape[1::-1]
    full = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
    guide = cv2.resize(full, (width, height), interpolation=cv2.INTER_AREA)
    mean = _windows(guide)
    variance = _windows(guide * guide) - mean * mean
    for score in map(np.ascontiguousarray, scores):
        average = _windows(score)
        slope = (_windows(guide * score) - mean * average) / (variance + np.float32(_EPSILON))
        value = cv2.resize(_windows(slope), size, interpolation=cv2.INTER_LINEAR)
        value *= full
        value += cv2.resize(_windows(average - slope * mean), size, interpolation=cv2.INTER_LINEAR)
        yield value


def upsampled_labels(
    scores: Float32[np.ndarray, "k h w"], image: UInt8[np.ndarray, "H W 3"]
) -> UInt16[np.ndarray, "H W"]:
    """Returns the position of the largest of `upsampled_scores` of each pixel."""
    best = np.full(image.shape[:2], -np.inf, np.float32)
    chosen = np.zeros(image.shape[:2], np.uint16)
    for position, score in enumerate(upsampled_scores(scores, image)):
        chosen[score > best] = position
        np.maximum(best, score, out=best)
    return chosen


def _windows(plane: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    side = 2 * _RADIUS + 1
    return cv2.blur(plane, (side, side), borderType=cv2.BORDER_REFLECT)
