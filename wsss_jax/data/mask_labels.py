"""What a segmentation network learns from: the masks that another stage made."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wsss_jax.data.augment import Placement
from wsss_jax.data.confidence import CERTAIN, read_confidence
from wsss_jax.data.images import IGNORE, decode_mask
from wsss_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class MaskLabels:
    """Masks ``<id>.png`` of class indices, 255 where a pixel teaches nothing.

    Attributes:
      folder: with the files.
      num_classes: foreground classes C.
      least: pixels whose confidence (0…1) is below it teach nothing either; 0 asks for no files
        of confidence.
      confidence: the folder with these files, see `wsss_jax.data.confidence`.
    """

    folder: Path
    num_classes: int
    least: float = 0.0
    confidence: Path | None = None

    def __call__(
        self, image_id: str, size: tuple[int, int], placement: Placement
    ) -> dict[str, UInt8[np.ndarray, "s s"]]:
        """``segmentation`` of the crop.

        Args:
          image_id: names the file.
          size: height and width of the image.
          placement: what part of the image the crop shows.

        Raises:
          UserError: no or no fitting file of either kind.
        """
        path = self.folder / f"{image_id}.png"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"expected a mask at {path}: {error.strerror}; make it again"
            ) from error
        mask = decode_mask(content, str(path), self.num_classes)
        if mask.shape != size:
            raise UserError(
                f"{path}: expected {size[1]}×{size[0]} pixels as the image has, found"
                f" {mask.shape[1]}×{mask.shape[0]}: make the masks from the same images"
            )
        if self.confidence is not None:
            sure = read_confidence(self.confidence / path.name, size)
            mask[sure < self.least * CERTAIN] = IGNORE
        return {"segmentation": placement.mask(mask)}
