"""What a method asks of a training batch, and the arrays that the batch then has."""

import dataclasses

import jax
import numpy as np

from wsss_jax.data.views import LocalCrops, StrongView

__all__ = ["BatchSpec", "LocalCrops", "StrongView"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """What a batch has beside ``image``, ``valid``, ``label`` and ``index``; see `shapes`.

    Attributes:
      segmentation: masks, the data's own or those of another stage.
      affinity_stride: above 0: AffinityNet's labels, the classes of blocks of so many pixels.
      strong: the crop in strongly changed colors.
      local_crops: small views of parts of the crop.
    """

    segmentation: bool = False
    affinity_stride: int = 0
    strong: StrongView | None = None
    local_crops: LocalCrops | None = None

    def shapes(
        self, batch_size: int, crop: int, num_classes: int
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """The arrays of a batch of B images in crops of side S, by their keys.

        - ``image`` uint8 [B, S, S, 3]: RGB, zero where it is padded;
        - ``valid`` bool [B, S, S]: where it shows the image;
        - ``label`` float32 [B, C]: zeros and ones of the foreground classes;
        - ``index`` int32 [B]: positions of the images in the split;
        - ``segmentation`` uint8 [B, S, S]: 0 background, k + 1 class k, 255 unknown;
        - ``affinity_label`` uint8 [B, ceil(S / stride), ceil(S / stride)]: likewise, of blocks;
        - ``image_strong`` uint8 [B, S, S, 3]: shows what ``image`` shows, and where it does;
        - ``local_image`` uint8 [B, n, s, s, 3] and ``local_valid`` bool [B, n, s, s]: the local
          crops;
        - ``local_box`` float32 [B, n, 4]: the part of the crop that each of them shows, as top,
          left, height and width in pixels of the crop.
        """
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
        """Keys of the arrays that are read from files of their own for every image."""
        asked = {"segmentation": self.segmentation, "affinity_label": self.affinity_stride}
        return tuple(key for key, value in asked.items() if value)
