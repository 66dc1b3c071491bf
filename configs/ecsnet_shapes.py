"""ECS-Net on the built-in data, a tiny network from scratch.

    python -m wsss_jax.main --config configs/ecsnet_shapes.py --workdir runs/ecsnet_shapes

Two CPU cores suffice; nothing is downloaded. The dilations suit maps of 12 pixels a side.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import cam_shapes


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c: Any = cam_shapes.get_config()
    c.name = "ecsnet_shapes"
    # As the baseline in all but the method and the finish of its maps.
    for stage in (c.cam_train, c.cam_val):
        stage.update(normalise="min_max", enlarge="corners")
    c.train.method = ConfigDict(
        dict(
            name="ecsnet",
            backbone=c.train.method.backbone,
            fill="blur",
            fill_sigma=0.04,
            erase_threshold=0.6,
            dilations=(1, 2, 3),
            overlay_both=False,
            tau_fg=0.5,
            tau_bg=0.1,
            suppression="agree",
            label_weight=1.0,
            label_start=0,
            balanced=True,
            temperature=0.1,
            erased_weight=1.0,
            train_maps=True,
            dropout=0.1,
            head_lr=10.0,
            dtype="float32",
        )
    )
    return c
