"""The masks that a segmentation network learns from: those of the data set or of another stage."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss_jax.data.augment import Placement
from wsss_jax.data.confidence import CERTAIN, read_confidence
from wsss_jax.data.masks import IGNORE, decode_mask
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """The masks of the data set itself.

    Attributes:
      num_classes: the number of foreground classes C.
    """

    num_classes: int

    def __call__(self, record: Record, placement: Placement) -> UInt8[np.ndarray, "s s"]:
        """Returns the crop of an image's mask: 0 background, k + 1 class k, 255 unknown.

        Raises:
          UserError: the image has no mask, or its mask has another size.
        """
        name = record["id"]
        if record["segmentation"] is None:
            raise UserError(
                f"expected a mask for every image, found none for {name}: add it, or leave the"
                " image out of the split"
            )
        mask = decode_mask(record["segmentation"], name, self.num_classes)
        if mask.shape != record["size"]:
            raise UserError(
                f"expected the mask of {name} in the image's height and width, {record['size']},"
                f" found {mask.shape}: make the mask anew"
            )
        return placement.mask(mask)


@dataclasses.dataclass(frozen=True)
class MaskLabels:
    """Masks ``<id>.png`` of class indices, where pixels of value 255 are ignored.

    Attributes:
      folder: the folder of the masks.
      num_classes: the number of foreground classes C.
      least: pixels whose confidence (0…1) is below this value are ignored too; 0 needs no
        confidence files.
      confidence: the folder of the confidence files; see `wsss_jax.data.confidence`.
    """

    folder: Path
    num_classes: int
    least: float = 0.0
    confidence: Path | None = None

    def __call__(self, record: Record, placement: Placement) -> UInt8[np.ndarray, "s s"]:
        """Returns the crop of an image's mask: 0 background, k + 1 class k, 255 unknown.

        Raises:
          UserError: a file of either kind is missing, damaged or of another size.
        """
        path, size = self.folder / f"{record['id']}.png", record["size"]
        content = read_bytes(path, remedy="make it again")
        mask = decode_mask(content, str(path), self.num_classes)
        if mask.shape != size:
            raise UserError(
                f"{path}: expected {size[1]}×{size[0]} pixels like the image, found"
                f" {mask.shape[1]}×{mask.shape[0]}: make the masks from the same images"
            )
        if self.confidence is not None:
            sure = read_confidence(self.confidence / path.name, size)
            mask[sure < self.least * CERTAIN] = IGNORE
        return placement.mask(mask)
