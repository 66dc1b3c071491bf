"""ECS-Net's seeds on PASCAL VOC 2012 with ResNet38 (ICCV 2021).

    python -m wsss_jax.main --config configs/ecsnet_voc.py --workdir runs/ecsnet_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet38.npz

Optimizer, crop and schedule are those of SEAM. `wsss_jax/methods/ecsnet.py` gives reasons for the
choices that the paper leaves open. It needs one GPU or TPU core with 32 GB, or several devices. The
paper only has scores of the final network, an mIoU of 66.6 on val and 67.6 on test.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common, published
from wsss_jax.data.sets.base import DataSettings


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
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
