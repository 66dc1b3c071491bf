"""The upper bound on the built-in data, a segmentation network that is trained on the exact masks.

    python -m wsss_jax.main --config configs/seg_shapes.py --workdir runs/seg_shapes

Weakly supervised recipes with the same network can be compared with it.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import cam_shapes, common
from wsss_jax.methods.base import Method
from wsss_jax.stages.base import Stage


def get_config() -> ConfigDict:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_shapes.get_config()
    c.name = "seg_shapes"
    for stage in c.stages:
        if stage != "train":
            del c[stage]
    c.train.ground_truth = True
    c.train.evaluators = ConfigDict(common.evaluators("segmentation"))
    c.train.method = Method.defaults(
        "segmentation",
        backbone=c.train.method.backbone,
        head=dict(
            name="large_fov",
            features=128,
            dilation=2,
            dropout=0.1,
            bn_momentum=0.05,  # The run is short, so statistics have to follow quickly.
        ),
    )
    for split in ("train", "val"):
        c[f"masks_{split}"] = Stage.defaults(
            "predict", needs=dict(checkpoint="train"), split=split, scales=(0.75, 1.0)
        )
        c[f"eval_{split}"] = common.score(c, f"masks_{split}", split)
    common.finish(c, "train", "masks_train", "eval_train", "masks_val", "eval_val")
    return c
