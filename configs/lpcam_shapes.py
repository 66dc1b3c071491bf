"""LPCAM on the built-in data, after the CAM of a tiny network from scratch.

    python -m wsss_jax.main --config configs/lpcam_shapes.py --workdir runs/lpcam_shapes

Two CPU cores suffice, and nothing is downloaded. The training is that of `cam_shapes`; if its
folder ``train`` is copied into the new one, it is not repeated. The settings are the published
ones, because others are not better on train.
"""

from typing import Any

from configs import cam_shapes, common


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_shapes.get_config()
    c.name = "lpcam_shapes"
    common.local_prototypes(c, scales=c.cam_train.scales)
    return c
