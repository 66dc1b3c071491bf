"""The arrays that a method needs in a training batch."""

import dataclasses

import jax
import numpy as np

from wsss_jax.data.views import LocalCrops, StrongView
from wsss_jax.errors import UserError

__all__ = ["BatchSpec", "LocalCrops", "StrongView"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """What a batch has besides ``image``, ``valid``, ``label`` and ``index``; see `shapes`.

    Attributes:
      segmentation: whether it has masks, from the data set or from another stage.
      affinity_stride: if above 0, it has AffinityNet's labels, which are the classes of square
        blocks with sides of this number of pixels.
      strong: the view with strong changes of color, or None.
      local_crops: the small views of parts of the crop, or None.
      crop_multiple: the number of which the side of the crop has to be a multiple.
    """

    segmentation: bool = False
    affinity_stride: int = 0
    strong: StrongView | None = None
    local_crops: LocalCrops | None = None
    crop_multiple: int = 1

    def shapes(
        self, batch_size: int, crop: int, num_classes: int
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes and types of the arrays of a batch of B images in crops of side S.

        - ``image`` uint8 [B, S, S, 3]: RGB images, zero in the padding;
        - ``valid`` bool [B, S, S]: true for pixels of the image, false in the padding;
        - ``label`` float32 [B, C]: zeros and ones of the foreground classes;
        - ``index`` int32 [B]: the positions of the images in the split;
        - ``segmentation`` uint8 [B, S, S]: 0 for background, k + 1 for class k, 255 for unknown;
        - ``affinity_label`` uint8 [B, ceil(S / stride), ceil(S / stride)]: the same for blocks;
        - ``image_strong`` uint8 [B, S, S, 3]: the strong view, with the pixels of ``image`` in the
          same places;
        - ``local_image`` uint8 [B, n, s, s, 3] and ``local_valid`` bool [B, n, s, s]: the local
          crops;
        - ``local_box`` float32 [B, n, 4]: the part of the crop that each of them shows, as top,
          left, height and width in pixels of the crop.

        Raises:
          UserError: the crop is no multiple of `crop_multiple`.
        """
        if over := crop % self.crop_multiple:
            near = [n for n in (crop - over, crop - over + self.crop_multiple) if n]
            raise UserError(
                f"expected a crop of a multiple of {self.crop_multiple} pixels, found {crop}: set"
                f" augment.crop to {' or '.join(map(str, near))}"
            )
        square = (crop, crop)
        arrays: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
            "image": ((*square, 3), np.uint8),
            "valid": (square, np.bool_),
            "label": ((num_classes,), np.float32),
            "index": ((), np.int32),
        }
        if self.segmentation:
            arrays["segmentation"] = (square, np.uint8)
        if self.affinity_stride:
            side = -(-crop // self.affinity_stride)
            arrays["affinity_label"] = ((side, side), np.uint8)
        if self.strong is not None:
            arrays["image_strong"] = ((*square, 3), np.uint8)
        if self.local_crops is not None:
            count, size = self.local_crops.count, self.local_crops.size
            arrays["local_image"] = ((count, size, size, 3), np.uint8)
            arrays["local_valid"] = ((count, size, size), np.bool_)
            arrays["local_box"] = ((count, 4), np.float32)
        return {
            name: jax.ShapeDtypeStruct((batch_size, *shape), dtype)
            for name, (shape, dtype) in arrays.items()
        }

    @property
    def targets(self) -> tuple[str, ...]:
        """The keys of the arrays that are read from a separate file for every image."""
        asked = {"segmentation": self.segmentation, "affinity_label": self.affinity_stride}
        return tuple(key for key, value in asked.items() if value)
