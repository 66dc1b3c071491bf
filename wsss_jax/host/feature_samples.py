"""Chooses the pixels of feature maps whose features stand for a class, and draws some of them."""

import numpy as np
from jaxtyping import Bool, Float, Int

Size = tuple[int, int]


def sides_of(
    cam: Float[np.ndarray, "H W"], size: Size, threshold: float
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Returns the pixels of a feature map where the map of a class is above and below `threshold`.

    As in LPCAM's program, the map is resized to the size of the features by its nearest pixels, and
    a value that equals the threshold belongs to neither side.

    Args:
      cam: the map at the size of the image.
      size: the height and width of the features.
      threshold: the threshold.

    Returns:
      The two lists of positions, row by row.
    """
    rows, columns = (
        np.arange(low) * full // low for low, full in zip(size, cam.shape, strict=True)
    )
    near = cam[rows[:, None], columns].astype(np.float32).ravel()
    return np.flatnonzero(near > np.float32(threshold)), np.flatnonzero(
        near < np.float32(threshold)
    )


class Draw:
    """Draws at most `most` pixels of many images, each with the same probability.

    The result does not depend on the order of the images, because every pixel has a random number
    of its own and the lowest numbers win. If there are no more than `most`, all are drawn.

    Attributes:
      found: the number of pixels to draw from.
    """

    def __init__(self, most: int):
        self.found = 0
        self._most = most
        self._held: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._count = 0

    def add(
        self, image: int, places: Int[np.ndarray, " n"], numbers: Float[np.ndarray, " n"]
    ) -> None:
        """Adds the pixels `places` of an image with their random numbers."""
        self.found += len(places)
        self._held.append((np.full(len(places), image), places, numbers))
        self._count += len(places)
        if self._count > 2 * self._most:
            self._drop()

    def drawn(self) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Returns the images and places of the drawn pixels, in ascending order."""
        self._drop()
        if not self._held:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        images, places, _ = self._held[0]
        order = np.lexsort((places, images))
        return images[order], places[order]

    def _drop(self) -> None:
        if not self._held:
            return
        images, places, numbers = map(np.concatenate, zip(*self._held, strict=True))
        best: Bool[np.ndarray, " n"] = np.ones(len(numbers), bool)
        if len(numbers) > self._most:
            best[:] = False
            best[np.argpartition(numbers, self._most - 1)[: self._most]] = True
        self._held = [(images[best], places[best], numbers[best])]
        self._count = int(best.sum())
