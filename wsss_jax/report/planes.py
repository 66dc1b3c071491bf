"""Packs maps and masks as bytes from which a page gets the very counts of the evaluator.

A map is not stored as its score but as the number of thresholds that lie below it, its rank. A
pixel is foreground at the threshold with index i exactly where its rank is above i, as in
`wsss_jax.scoring.confusion.threshold_counts`. So 8 bits suffice for up to 255 thresholds, and
nothing is lost by rounding. The class with the largest score does not depend on the threshold.
"""

import zlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Float32, UInt8

from wsss_jax.data.masks import IGNORE
from wsss_jax.scoring.confusion import LabelMap
from wsss_jax.scoring.score_files import THRESHOLDS

UNKNOWN = -1
"""The true class of all pixels of an image without ground truth."""

_MOST_LEVELS = 255


def threshold_levels(used: Iterable[float]) -> list[float]:
    """Returns the evaluator's thresholds and those of `used`, ascending, at most 255 of them.

    Thresholds that are equal in float32, in which scores are compared, are one.
    """
    by_value = {np.float32(value): value for value in (*used, *THRESHOLDS)}
    further = [value for value in by_value if value not in _GRID]
    kept = {*_GRID, *further[: _MOST_LEVELS - len(_GRID)]}
    return [by_value[value] for value in sorted(kept)]


_GRID = frozenset(map(np.float32, THRESHOLDS))


def ranks(
    scores: Float[np.ndarray, "h w"], levels: Float32[np.ndarray, " l"]
) -> UInt8[np.ndarray, "h w"]:
    """Returns how many of the ascending `levels` lie strictly below each score."""
    return np.searchsorted(levels, scores.astype(np.float32), side="left").astype(np.uint8)


def pack(plane: UInt8[np.ndarray, "h w"]) -> bytes:
    """Compresses a plane: zlib of the rows, each minus the row above it (modulo 256)."""
    rows = plane.copy()
    rows[1:] -= plane[:-1]
    return zlib.compress(rows.tobytes(), 6)  # 9 takes three times as long for 6 % less


def mask_pairs(
    truth: UInt8[np.ndarray, "h w"] | None, prediction: UInt8[np.ndarray, "h w"]
) -> list[tuple[int, int, list[int]]]:
    """Returns the number of pixels of every pair (true class, predicted class) that occurs.

    Pixels whose truth is 255 are not counted; a predicted 255 counts as background. Without ground
    truth, the true class is `UNKNOWN`.
    """
    return map_pairs(
        truth, np.where(prediction == IGNORE, 0, prediction), np.zeros_like(prediction)
    )


def map_pairs(
    truth: UInt8[np.ndarray, "h w"] | None,
    winner: LabelMap,
    rank: UInt8[np.ndarray, "h w"],
    num_ranks: int = 1,
) -> list[tuple[int, int, list[int]]]:
    """Returns, for every pair (true class, class of the largest score), its pixels by rank.

    At the threshold i, the pixels with ranks up to i are background, and the others have the class.
    """
    winner, rank = winner.ravel().astype(np.int64), rank.ravel()
    known = np.full(winner.shape, UNKNOWN) if truth is None else truth.ravel().astype(np.int64)
    counted = known != IGNORE
    classes = int(winner.max(initial=0)) + 1
    cells = ((known[counted] - UNKNOWN) * classes + winner[counted]) * num_ranks + rank[counted]
    counts = np.bincount(cells, minlength=num_ranks)
    counts = np.pad(counts, (0, -len(counts) % num_ranks)).reshape(-1, num_ranks)
    return [
        (int(pair) // classes + UNKNOWN, int(pair) % classes, counts[pair].tolist())
        for pair in np.flatnonzero(counts.any(1))
    ]
