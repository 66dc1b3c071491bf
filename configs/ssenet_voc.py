"""SSENet on PASCAL VOC 2012 with ResNet38, as published (arXiv 1909.03714): the seeds.

    python -m wsss_jax.main --config configs/ssenet_voc.py --workdir runs/ssenet_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet38.npz

One GPU or TPU core with 32 GB, or several devices. Published mIoU on train: CAM 49.8 (baseline
47.3), with AffinityNet's walk 62.1.
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
