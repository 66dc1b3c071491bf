"""The plain CAM that SSENet and SEAM compare with, on PASCAL VOC 2012 with ResNet38.

    python -m wsss_jax.main --config configs/cam_voc.py --workdir runs/cam_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet38.npz

This is AffinityNet's classification recipe with the learning rate and image sizes of the later
papers. It needs one GPU or TPU core with 32 GB, or several devices. The published mIoU of the maps
on train is 47.43.
"""

from ml_collections import ConfigDict

from configs import common, published
from wsss_jax.data.sets.base import DataSettings


def get_config() -> ConfigDict:
    """Returns the recipe; the command line can replace every value."""
    c = ConfigDict()
    c.name = "cam_voc"
    c.seed = 0
    c.data = DataSettings.defaults("voc2012")
    c.train = common.training(
        batch_size=16,
        epochs=15,
        method=dict(name="cam", backbone=dict(name="resnet38")),
        optimizer=published.optimizer(lr=0.01),
    )
    common.seeds_and_scores(c)
    return c
