"""k-means with the cosine distance, as LPCAM's program clusters features."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Clusters(NamedTuple):
    """The result of `cosine_kmeans`.

    Attributes:
      ids: the cluster of each row.
      centers: the mean of the rows of each cluster, or its last center if it has none.
      iterations: how often the centers were computed.
    """

    ids: Int[np.ndarray, " n"]
    centers: Float[np.ndarray, "k d"]
    iterations: int

    def filled(self) -> Float[np.ndarray, "filled d"]:
        """Returns the centers of the clusters that have rows."""
        return self.centers[np.bincount(self.ids, minlength=len(self.centers)) > 0]


def cosine_kmeans(
    x: Float[np.ndarray, "n d"], start: Float[np.ndarray, "k d"], tolerance: float, most: int
) -> Clusters:
    """Clusters rows by their angles, although centers are means of rows of any length.

    It ends when the square of the summed lengths by which the centers moved is below `tolerance`.
    In the published program, a cluster without rows becomes NaN and then draws all rows; here it
    keeps its center.

    Args:
      x: the rows, none of which is zero.
      start: the first centers, which are rows.
      tolerance: the threshold of the end, in the units of `x` squared.
      most: the most iterations.

    Returns:
      The clusters, whose ids are those from which the last centers were computed.
    """
    centers = start.astype(np.float64)
    ids = np.zeros(len(x), np.int64)
    iterations = 0
    moved = np.inf
    while len(centers) and iterations < most and moved**2 >= tolerance:
        units = centers / np.maximum(np.linalg.norm(centers, axis=1, keepdims=True), 1e-300)
        ids = (x @ units.T.astype(x.dtype)).argmax(1)
        means = np.stack(
            [
                x[own].mean(0, dtype=np.float64) if (own := ids == k).any() else centers[k]
                for k in range(len(centers))
            ]
        )
        moved = float(np.linalg.norm(means - centers, axis=1).sum())
        centers = means
        iterations += 1
    return Clusters(ids, centers.astype(x.dtype), iterations)
