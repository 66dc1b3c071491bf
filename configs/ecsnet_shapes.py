"""ECS-Net on the built-in data, with a tiny network from scratch.

    python -m wsss_jax.main --config configs/ecsnet_shapes.py --workdir runs/ecsnet_shapes

Two CPU cores suffice, and nothing is downloaded. The dilations suit maps of 12 × 12 pixels.
"""

from typing import Any

from configs import cam_shapes, common
from wsss_jax.methods.base import Method


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_shapes.get_config()
    c.name = "ecsnet_shapes"
    # Only the method and the making of its maps differ from the baseline.
    common.change_maps(c, **common.SEAM_MAPS)
    c.train.method = Method.defaults(
        "ecsnet", backbone=c.train.method.backbone, dilations=(1, 2, 3), dropout=0.1
    )
    return c
