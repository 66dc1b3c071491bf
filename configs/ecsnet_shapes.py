"""ECS-Net on the built-in data, a tiny network from scratch.

    python -m wsss_jax.main --config configs/ecsnet_shapes.py --workdir runs/ecsnet_shapes

Two CPU cores suffice; nothing is downloaded. The dilations suit maps of 12 pixels a side.
"""

from typing import Any

from configs import cam_shapes
from wsss_jax.methods.base import Method


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c: Any = cam_shapes.get_config()
    c.name = "ecsnet_shapes"
    # As the baseline in all but the method and the finish of its maps.
    for stage in (c.cam_train, c.cam_val):
        stage.update(normalize="min_max", upsample="corners")
    c.train.method = Method.defaults(
        "ecsnet", backbone=c.train.method.backbone, dilations=(1, 2, 3), dropout=0.1
    )
    return c
