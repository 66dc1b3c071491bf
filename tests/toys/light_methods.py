"""Every method of the package, light enough for tests, and a batch that each can learn from."""

from typing import Any

import numpy as np

from wsss_jax.methods.base import Method
from wsss_jax.settings import kind_names, kind_of

CLASSES, CROP = 3, 32
TINY = dict(name="tiny", width=8)
FIELDS: dict[str, dict[str, Any]] = {
    "segmentation": dict(head=dict(name="large_fov", features=16, dilation=2)),
    "pss": dict(features=8, region_stride=4, mask_scales=(0.5, 1.0), map_scales=(0.5, 1.0)),
    "lpcam": dict(clusters=3),
    # A finer map, for pairs need one of 11 pixels at least.
    "affinity": dict(dims=(8, 8, 8, 16), map_stride=2),
}
"""A light version of the method where its defaults are made for a large network."""


def names() -> list[str]:
    """All methods of the package."""
    return list(kind_names(Method))


def trained_names() -> list[str]:
    """The methods that are trained; the networks of the others come from stages of their own."""
    return [name for name in names() if not kind_of(Method, name).made_by]


def make(name: str, backbone: dict[str, Any] = TINY, **fields: Any) -> Method:
    """The light version of a method with some of its fields changed."""
    section = {"name": name, "backbone": backbone, **FIELDS.get(name, {}), **fields}
    return Method.from_config(section, "method", num_classes=CLASSES)


def make_batch(size: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Images, some of them padded, with labels, masks and views of all kinds.

    There are two local crops of 16 pixels; a light version of a method asks for as many.
    """
    rng = np.random.default_rng(seed)
    valid = np.ones((size, CROP, CROP), bool)
    valid[1, 24:] = False
    valid[2, :, :5] = False
    image = rng.integers(0, 256, (size, CROP, CROP, 3), dtype=np.uint8) * valid[..., None]
    segmentation = rng.integers(0, CLASSES + 1, (size, CROP, CROP)).astype(np.uint8)
    segmentation[~valid] = 255
    label = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, size)]
    label[0] = 1
    local = image[:, None, 4:20, 8:24].repeat(2, 1)
    return {
        "image": image,
        "valid": valid,
        "label": label,
        "index": np.arange(size, dtype=np.int32),
        "segmentation": segmentation,
        "affinity_label": segmentation[:, ::2, ::2].copy(),
        "image_strong": 255 - image,
        "local_image": local,
        "local_valid": valid[:, None, 4:20, 8:24].repeat(2, 1),
        "local_box": np.tile(np.array([4, 8, 16, 16], np.float32), (size, 2, 1)),
    }
