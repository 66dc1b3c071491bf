"""The permutohedral lattice, point by point."""

import math
from collections import defaultdict

import numpy as np
import pytest


def obvious_filter(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The lattice with a dictionary of vertices, point by point as its authors tell it."""
    d = features.shape[1]
    size = d + 1
    table: dict[tuple[int, ...], float] = defaultdict(float)
    places = []
    for feature, value in zip(features.tolist(), values.tolist(), strict=True):
        scaled = [
            f * math.sqrt(2 / 3) * size / math.sqrt((i + 1) * (i + 2))
            for i, f in enumerate(feature)
        ]
        elevated = [sum(scaled)]
        elevated += [sum(scaled[i:]) - i * scaled[i - 1] for i in range(1, size)]
        # The nearest of all points whose coordinates leave no remainder: the rounded one, moved
        # within the plane.
        nearest = [round(e / size) * size for e in elevated]
        offset = [e - n for e, n in zip(elevated, nearest, strict=True)]
        order = sorted(range(size), key=lambda i: -offset[i])
        surplus = sum(nearest) // size
        for i in order[size - surplus :] if surplus > 0 else order[: max(-surplus, 0)]:
            nearest[i] -= size if surplus > 0 else -size
        assert sum(nearest) == 0
        offset = [e - n for e, n in zip(elevated, nearest, strict=True)]
        order = sorted(range(size), key=lambda i: -offset[i])
        falling = [offset[i] for i in order]
        corners = []
        for r in range(size):
            corner = list(nearest)
            for place, i in enumerate(order):
                corner[i] += r if place <= d - r else r - size
            low, high = (falling[0], falling[d]) if r == 0 else (falling[size - r], falling[d - r])
            weight = 1 - (low - high) / size if r == 0 else (high - low) / size
            corners.append((tuple(corner), weight))
        assert sum(weight for _, weight in corners) == pytest.approx(1)
        assert all(weight > -1e-9 for _, weight in corners)
        places.append(corners)
        for corner, weight in corners:
            table[corner] += weight * value
    for axis in range(size):
        step = [-1 if i != axis else d for i in range(size)]
        shifted = {
            vertex: [
                tuple(v + sign * s for v, s in zip(vertex, step, strict=True)) for sign in (1, -1)
            ]
            for vertex in table
        }
        table = defaultdict(
            float,
            {v: table[v] + 0.5 * sum(table.get(n, 0.0) for n in shifted[v]) for v in list(table)},
        )
    return np.array([sum(w * table[c] for c, w in corners) for corners in places])
