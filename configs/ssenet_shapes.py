"""SSENet on the built-in data, with a tiny network from scratch.

    python -m wsss_jax.main --config configs/ssenet_shapes.py --workdir runs/ssenet_shapes

Two CPU cores suffice, and nothing is downloaded.
"""

from typing import Any

from configs import cam_shapes, common
from wsss_jax.methods.base import Method


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_shapes.get_config()
    c.name = "ssenet_shapes"
    # Only the method and the making of its maps differ from the baseline.
    c.train.method = Method.defaults(
        "ssenet", backbone=c.train.method.backbone, small_scale=0.5, dropout=0.1
    )
    common.change_maps(c, **common.SSENET_MAPS)
    return c
