"""What AffinityNet learns from: the classes that two dense CRFs agree on, for a training crop."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from wsss_jax.data.augment import Placement
from wsss_jax.data.formats.crf_files import read_crf
from wsss_jax.data.images import IGNORE
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError

_NOTHING = 1e-5  # no score here: outside the image


@dataclasses.dataclass(frozen=True)
class AffinityLabels:
    """Labels of a crop's blocks, from the files ``<id>.npz`` of `wsss_jax.data.formats.crf_files`.

    A background (1 − max)^α is strong for a small α: what is foreground then is sure to be, and so
    is what is still background with a large α. Everything else is unknown.

    Attributes:
      folder: with the files.
      alphas: of the two distributions, the smaller first (published: 4 and 24).
      num_classes: foreground classes C.
      stride: side of a block, pixels; it divides the side of the crop.
    """

    folder: Path
    alphas: tuple[float, ...]
    num_classes: int
    stride: int = 8

    def __post_init__(self):
        """Checks the alphas.

        Raises:
          UserError: they are not two in ascending order.
        """
        if len(self.alphas) != 2 or not self.alphas[0] < self.alphas[1]:
            raise UserError(
                f"expected two affinity_alphas, the smaller first, found {self.alphas}: give two"
                " of the crf stage's"
            )

    def __call__(self, record: Record, placement: Placement) -> UInt8[np.ndarray, "p p"]:
        """The labels of the crop's blocks: 0 background, k + 1 foreground class k, 255 unknown.

        Raises:
          UserError: no or no fitting file.
        """
        path, size = self.folder / f"{record['id']}.npz", record["size"]
        labels, known = [], np.True_
        for alpha in self.alphas:
            keys, q = read_crf(path, alpha, self.num_classes)
            if q.shape[1:] != size:
                raise UserError(
                    f"{path}: expected {size[1]}×{size[0]} pixels as the image has, found"
                    f" {q.shape[2]}×{q.shape[1]}: make the CRF's results from the same images"
                )
            scores = block_means(placement.planes(q), self.stride)
            labels.append(np.concatenate([[0], keys + 1]).astype(np.uint8)[scores.argmax(0)])
            known = known & (scores.max(0) >= _NOTHING)
        low, high = labels
        label = np.where(high == 0, 0, np.where(low != 0, low, IGNORE))
        return np.where(known, label, IGNORE).astype(np.uint8)


def block_means(planes: Float32[np.ndarray, "k h w"], stride: int) -> Float32[np.ndarray, "k p q"]:
    """Means over blocks of `stride` × `stride` pixels; `stride` divides both sides."""
    k, h, w = planes.shape
    return planes.reshape(k, h // stride, stride, w // stride, stride).mean((2, 4))
