"""Slow and obvious versions of what ECS-Net does to maps and labels, one pixel after the other."""

import numpy as np

EPSILON = 1e-5


def max_min(cam: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """One map in 0..1, zero where padded."""
    positive = np.maximum(cam, 0)
    low, high = positive[valid].min(), positive[valid].max()
    return np.maximum(positive - low - EPSILON, 0) / (high - low + EPSILON) * valid


def resized(plane: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, corners aligned, to a square."""
    height, width = plane.shape
    out = np.zeros((size, size))
    for y, x in np.ndindex(size, size):
        v, u = y * (height - 1) / (size - 1), x * (width - 1) / (size - 1)
        j, i = min(int(v), height - 2), min(int(u), width - 2)
        row = plane[j] * (1 - v + j) + plane[j + 1] * (v - j)
        out[y, x] = row[i] * (1 - u + i) + row[i + 1] * (u - i)
    return out


def label_by_hand(
    normal: np.ndarray, other: np.ndarray, present: np.ndarray, rule: str, fg: float, bg: float
) -> int:
    """The label of one pixel of one image; `present` says which classes respond somewhere."""
    k, best = int(np.argmax(normal)), normal.max()
    if rule == "none":
        return k + 1 if best >= 0.5 else 0
    contradicted = other.max() >= fg
    if best >= fg:
        wrong = rule != "threshold" and contradicted and int(np.argmax(other)) != k
        return 255 if wrong else k + 1
    if best < bg and not (rule == "consistent" and (contradicted or not present.all())):
        return 0
    return 255
