"""SSENet's seeds on PASCAL VOC 2012 with ResNet38, as published (arXiv 1909.03714).

    python -m wsss_jax.main --config configs/ssenet_voc.py --workdir runs/ssenet_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet38.npz

It needs one GPU or TPU core with 32 GB, or several devices. The published mIoU on train is 49.8 for
the maps (47.3 for the baseline) and 62.1 after AffinityNet's walk.
"""

from typing import Any

from configs import cam_voc, common
from wsss_jax.methods.base import Method


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_voc.get_config()
    c.name = "ssenet_voc"
    # Only the method and the making of its maps differ from the baseline.
    c.train.method = Method.defaults("ssenet", backbone=c.train.method.backbone)
    common.change_maps(c, **common.SSENET_MAPS)
    return c
