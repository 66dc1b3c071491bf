"""AffinityNet's whole program on PASCAL VOC 2012 with ResNet38 (CVPR 2018, arXiv 1803.10464).

    python -m wsss_jax.main --config configs/cam_psa_voc.py --workdir runs/cam_psa_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet38.npz

The chain is a plain CAM, a dense CRF, AffinityNet, a random walk and DeepLabv1; ``--only`` runs a
part. It needs one GPU or TPU core with 32 GB, or several devices.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import chains, common, published
from wsss_jax.data.sets.base import DataSettings


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = ConfigDict()
    c.name = "cam_psa_voc"
    c.seed = 0
    c.data = DataSettings.defaults("voc2012")
    backbone = dict(name="resnet38")
    c.train = common.training(
        batch_size=16,
        epochs=15,
        augment=dict(long_side=(256, 512)),
        method=dict(name="cam", backbone=backbone),
        optimizer=published.optimizer(lr=0.1),
    )
    chains.with_affinities(
        c,
        affinity=published.affinity(backbone, lr=0.1),
        segmentation=published.segmentation(backbone),
        walk=dict(alpha=16.0, beta=8.0, steps=256),
        test=published.TEST,
        alphas=(4.0, 32.0),
    )
    return c
