"""AffinityNet's labels for a training crop: the classes that two dense CRFs agree on."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss_jax.data.augment import Placement
from wsss_jax.data.block_means import block_means
from wsss_jax.data.formats.crf_files import read_crf
from wsss_jax.data.masks import IGNORE
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError

_NOTHING = 1e-5  # a block whose scores are below this lies outside of the image


@dataclasses.dataclass(frozen=True)
class AffinityLabels:
    """Labels of a crop's blocks, from the files ``<id>.npz`` of `wsss_jax.data.formats.crf_files`.

    A background (1 − max)^α is strong for a small α. So pixels that are foreground with the small α
    are surely foreground, and pixels that are background with the large α are surely background.
    All other pixels are unknown.

    Attributes:
      folder: the folder of the files.
      alphas: the two values of α, the smaller one first; 4 and 24 are published.
      num_classes: the number of foreground classes C.
      stride: the side of a block in pixels.
    """

    folder: Path
    alphas: tuple[float, ...]
    num_classes: int
    stride: int = 8

    def __post_init__(self):
        """Checks the alphas.

        Raises:
          UserError: there are not two alphas in ascending order.
        """
        if len(self.alphas) != 2 or not self.alphas[0] < self.alphas[1]:
            raise UserError(
                f"expected two affinity_alphas, the smaller first, found {self.alphas}: choose two"
                " of the alphas of the crf stage"
            )

    def __call__(self, record: Record, placement: Placement) -> UInt8[np.ndarray, "p p"]:
        """Returns the labels of the crop's blocks: 0 background, k + 1 class k, 255 unknown.

        Raises:
          UserError: the image's file is missing, damaged or of another size than the image.
        """
        path, size = self.folder / f"{record['id']}.npz", record["size"]
        labels, known = [], np.True_
        for alpha in self.alphas:
            keys, q = read_crf(path, alpha, self.num_classes)
            if q.shape[1:] != size:
                raise UserError(
                    f"{path}: expected {size[1]}×{size[0]} pixels like the image, found"
                    f" {q.shape[2]}×{q.shape[1]}: make the CRF results from the same images"
                )
            scores = block_means(placement.planes(q), self.stride)
            labels.append(np.concatenate([[0], keys + 1]).astype(np.uint8)[scores.argmax(0)])
            known = known & (scores.max(0) >= _NOTHING)
        low, high = labels
        label = np.where(high == 0, 0, np.where(low != 0, low, IGNORE))
        return np.where(known, label, IGNORE).astype(np.uint8)
