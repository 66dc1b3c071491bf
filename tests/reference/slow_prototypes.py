"""Slow and obvious versions of what RCM + MAM does to maps and features."""

import numpy as np

from tests.reference.slow_erasing import EPSILON


def normal(v: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(v, axis=-1, keepdims=True)
    return np.divide(v, length, out=np.zeros_like(v), where=length > 1e-6)


def stretched(plane: np.ndarray, size: int) -> np.ndarray:
    """Bilinear to a square, corners not aligned, one sample after the other."""
    count = len(plane)
    out = np.zeros((size, size))
    for y, x in np.ndindex(size, size):
        v, u = (max((n + 0.5) * count / size - 0.5, 0) for n in (y, x))
        j, i = int(v), int(u)
        below, right = min(j + 1, count - 1), min(i + 1, count - 1)
        upper = plane[j, i] * (1 - u + i) + plane[j, right] * (u - i)
        lower = plane[below, i] * (1 - u + i) + plane[below, right] * (u - i)
        out[y, x] = upper * (1 - v + j) + lower * (v - j)
    return out


def assigned(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Region of each pixel of [b, c, h, w] maps."""
    normalized = maps / (maps.max((2, 3), keepdims=True) + EPSILON)
    return np.where(normalized.max(1) < threshold, 0, normalized.argmax(1) + 1)


def summed(features: np.ndarray, regions: np.ndarray, count: int) -> np.ndarray:
    """Prototypes [b, count, d]: sums of unit features, of length one; zero without pixels."""
    out = np.zeros((len(features), count, features.shape[-1]))
    for b, k in np.ndindex(*out.shape[:2]):
        members = normal(features[b][regions[b] == k])
        if len(members):
            out[b, k] = normal(members.sum(0))
    return out


def attended(own: np.ndarray, support: list[np.ndarray], attention: bool) -> np.ndarray:
    """What the maps [b, c, h, w] should equal."""
    target = np.zeros(own.shape)
    for b, k in np.ndindex(*own.shape[:2]):
        for other in support:
            cosine = normal(own[b, k].ravel()) @ normal(other[b, k].ravel())
            target[b, k] += (2 - cosine if attention else 1) * other[b, k] / len(support)
    return target
