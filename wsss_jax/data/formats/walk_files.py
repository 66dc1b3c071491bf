"""Reads and writes results of random walks, files ``<id>.npz`` with scores at low resolution.

`keys` int32 [K] are the foreground classes 0…C−1 of the image in ascending order. `scores` is
float16 [K + 1, h, w], the background first. Each of its pixels stands for a block of `stride` ×
`stride` pixels of the image at the size `walked`, which differs from the image's own `size` only
for very large images.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int

from wsss_jax.data.formats.npz import open_arrays
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, make_again

Size = tuple[int, int]

_MOST_SCORES = 2**28  # upsampled, which are 1 GiB


class Walk(NamedTuple):
    """Scores after a random walk, where sizes are (height, width)."""

    keys: Int[np.ndarray, " k"]
    scores: Float[np.ndarray, "labels h w"]
    size: Size
    walked: Size
    stride: int

    def upsampled(self) -> Float32[np.ndarray, "labels H W"]:
        """Upsamples the scores to the image's size, bilinearly with the half-pixel convention.

        As in the published programs, pixels become blocks of `stride` pixels, and what lies beyond
        the image is cut off.
        """
        height, width = (side * self.stride for side in self.scores.shape[1:])
        planes = []
        for plane in self.scores:
            plane = cv2.resize(plane.astype(np.float32), (width, height))
            plane = plane[: self.walked[0], : self.walked[1]]
            planes.append(cv2.resize(plane, self.size[::-1]) if self.walked != self.size else plane)
        return np.stack(planes)


def write_walk(path: Path, walk: Walk) -> None:
    """Writes a result atomically."""
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            keys=walk.keys.astype(np.int32),
            scores=walk.scores.astype(np.float16),
            size=np.asarray(walk.size, np.int32),
            walked=np.asarray(walk.walked, np.int32),
            stride=np.int32(walk.stride),
        )


def read_walk(path: Path, num_classes: int | None = None) -> Walk:
    """Reads a result.

    Args:
      path: the file.
      num_classes: the number of foreground classes C, which keys must be below. None accepts every
        key.

    Raises:
      UserError: the file is missing, truncated or of another kind, a key is out of range, or a
        score is not finite.
    """
    try:
        with open_arrays(path) as arrays:
            keys, scores = arrays["keys"], arrays["scores"]
            size, walked = ((int(h), int(w)) for h, w in (arrays["size"], arrays["walked"]))
            stride = int(arrays["stride"])
    except FileNotFoundError as error:
        raise UserError(f"expected the result of a walk at {path}, found no file") from error
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"{path}: expected the result of a walk (.npz), found a truncated or foreign file"
            f" ({error}): {make_again(path)}"
        ) from error
    if not (keys.ndim == 1 and scores.ndim == 3 and len(scores) == len(keys) + 1):
        raise UserError(
            f"{path}: expected keys [K] and scores [K + 1, h, w], found {keys.shape} and"
            f" {scores.shape}: {make_again(path)}"
        )
    if len(keys) and num_classes is not None and not 0 <= keys.min() <= keys.max() < num_classes:
        raise UserError(
            f"{path}: expected classes 0 to {num_classes - 1} without background, found"
            f" {keys.tolist()}: check the list of classes"
        )
    height, width = (side * max(stride, 0) for side in scores.shape[1:])
    fits = 1 <= walked[0] <= height and 1 <= walked[1] <= width and min(size) >= 1
    if not fits or max(height * width, size[0] * size[1]) * len(scores) > _MOST_SCORES:
        raise UserError(
            f"{path}: expected scores [K + 1, h, w] that fill an image, found {scores.shape} of"
            f" {stride} pixels, for {walked[0]} x {walked[1]} and {size[0]} x {size[1]} pixels:"
            f" {make_again(path)}"
        )
    if not np.isfinite(scores).all():
        raise UserError(
            f"{path}: expected finite scores, found NaN or infinity: {make_again(path)}"
        )
    return Walk(keys, scores, size, walked, stride)
