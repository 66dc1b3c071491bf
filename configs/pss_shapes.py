"""RCM + MAM on the built-in data, a tiny network from scratch.

    python -m wsss_jax.main --config configs/pss_shapes.py --workdir runs/pss_shapes

Two CPU cores suffice; nothing is downloaded.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import cam_shapes, common


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c: Any = cam_shapes.get_config()
    c.name = "pss_shapes"
    c.train.method = ConfigDict(
        dict(
            name="pss",
            backbone=c.train.method.backbone,
            features=64,
            rcm_weight=1.0,
            mam_weight=1.0,
            threshold=0.3,
            decay=0.99,
            memory=0,
            mask_scales=(0.75, 1.0),
            map_scales=(0.75, 1.0),
            region_stride=4,
            head_lr=10.0,
            dtype="float32",
        )
    )
    common.contrast_first(c)
    c.train_rcm.epochs, c.train.epochs = 12, 6
    return c
