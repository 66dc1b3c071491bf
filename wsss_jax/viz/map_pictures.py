"""Pictures of a batch overlaid with a method's maps, for following a training run."""

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Array, UInt8

from wsss_jax.viz.overlay import cam_overlay

PICTURES = 4
"""The number of images of a batch that are shown."""


def map_pictures(
    batch: Mapping[str, np.ndarray], maps: Mapping[str, Array]
) -> dict[str, UInt8[np.ndarray, "n s s 3"]]:
    """Returns the first images of a batch, and overlaid with each of `maps`.

    Each pixel shows the largest response of the classes that the image has.

    Args:
      batch: ``image`` uint8 [B, S, S, 3] and ``label`` [B, C].
      maps: named maps of all images or of the first `PICTURES`, [b, h, w, C], or with C + 1
        channels of which the first is the background.

    Returns:
      ``image`` and one picture for each name in `maps`.
    """
    images, labels = batch["image"][:PICTURES], batch["label"][:PICTURES]
    drawn = {"image": images}
    for name, value in maps.items():
        value = np.asarray(value, np.float32)[:PICTURES]
        shown = value[..., value.shape[-1] - labels.shape[-1] :] * labels[:, None, None, :]
        heat = np.maximum(shown, 0).max(-1)
        heat = heat / (heat.max((1, 2), keepdims=True) + 1e-5)
        drawn[name] = np.stack(
            [
                cam_overlay(image, cv2.resize(one, image.shape[1::-1]))
                for image, one in zip(images, heat, strict=True)
            ]
        )
    return drawn
