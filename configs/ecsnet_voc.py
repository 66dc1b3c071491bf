"""ECS-Net on PASCAL VOC 2012 with ResNet38 (ICCV 2021): the seeds.

    python -m wsss_jax.main --config configs/ecsnet_voc.py --workdir runs/ecsnet_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet38.npz

Optimizer, crop and schedule are SEAM's. What the paper leaves open has its reasons in
`wsss_jax/methods/ecsnet.py`. One GPU or TPU core with 32 GB, or several devices. Published is the
final network alone: mIoU 66.6 on val, 67.6 on test.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common, published
from wsss_jax.data.sets.base import DataSettings


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c: Any = ConfigDict()
    c.name = "ecsnet_voc"
    c.seed = 0
    c.data = DataSettings.defaults("voc2012")
    c.train = common.training(
        batch_size=8,
        epochs=8,
        method=dict(name="ecsnet", backbone=dict(name="resnet38")),
        optimizer=published.optimizer(lr=0.01),
    )
    common.seeds_and_scores(c, **common.SEAM_MAPS)
    return c
