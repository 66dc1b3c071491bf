"""RCM + MAM on the built-in data, with a tiny network from scratch.

    python -m wsss_jax.main --config configs/pss_shapes.py --workdir runs/pss_shapes

Two CPU cores suffice, and nothing is downloaded.
"""

from typing import Any

from configs import cam_shapes, common
from wsss_jax.methods.base import Method


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c = undivided()
    c.name = "pss_shapes"
    common.contrast_first(c)
    c.train_rcm.epochs, c.train.epochs = 12, 6
    return c


def undivided() -> Any:
    """The recipe in one training stage of as many epochs, under the name of the baseline."""
    c: Any = cam_shapes.get_config()
    c.train.method = Method.defaults(
        "pss",
        backbone=c.train.method.backbone,
        features=64,
        decay=0.99,
        mask_scales=(0.75, 1.0),
        map_scales=(0.75, 1.0),
        region_stride=4,
        head_lr=10.0,
    )
    return c
