"""The plain CAM that SSENet and SEAM compare with, on PASCAL VOC 2012 with ResNet38.

    python -m wsss_jax.main --config configs/cam_voc.py --workdir runs/cam_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet38.npz

AffinityNet's classification recipe with the learning rate and the image sizes of the later papers.
One GPU or TPU core with 32 GB, or several devices. Published CAM score on train: 47.43 mIoU.
"""

from ml_collections import ConfigDict

from configs import common, published
from wsss_jax.data.sets.base import DataSettings


def get_config() -> ConfigDict:
    """The recipe; every value can be replaced on the command line."""
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
