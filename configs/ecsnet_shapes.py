"""ECS-Net on the built-in data, a tiny network from scratch.

    python -m wsss_jax.main --config configs/ecsnet_shapes.py --workdir runs/ecsnet_shapes

Two CPU cores suffice; nothing is downloaded. The dilations suit maps of 12 pixels a side.
"""

from typing import Any

from configs import cam_shapes, common
from wsss_jax.methods.base import Method


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c: Any = cam_shapes.get_config()
    c.name = "ecsnet_shapes"
    # As the baseline in all but the method and how its maps are made.
    common.change_maps(c, **common.SEAM_MAPS)
    c.train.method = Method.defaults(
        "ecsnet", backbone=c.train.method.backbone, dilations=(1, 2, 3), dropout=0.1
    )
    return c
