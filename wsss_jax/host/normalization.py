"""Normalizes summed activation maps, on the host and on devices."""

from typing import Any

import numpy as np

_EPSILON = 1e-5  # as in the published programs


def normalized(total: Any, kind: str, inside: Any = True, xp: Any = np) -> Any:
    """Normalizes summed maps [..., k, h, w] to 0…1; a class without response stays 0.

    ``max`` is v/(max + ε). ``min_max`` is (v − min − ε)/(max − min + ε), or 0 below min + ε.

    Args:
      total: the maps, whose last two axes are those of the pixels.
      kind: ``max`` or ``min_max``.
      inside: the pixels that belong to the image.
      xp: the array library, NumPy or ``jax.numpy``.
    """
    cam = xp.maximum(total, 0)
    high = cam.max((-2, -1), keepdims=True, where=inside, initial=0)
    if kind == "max":
        return cam / (high + _EPSILON)
    low = cam.min((-2, -1), keepdims=True, where=inside, initial=np.inf)
    return xp.maximum(cam - low - _EPSILON, 0) / (high - low + _EPSILON)
