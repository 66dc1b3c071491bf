"""SEAM on PASCAL VOC 2012 with ResNet38, as published (CVPR 2020, arXiv 2004.04581), in full.

    python -m wsss_jax.main --config configs/seam_voc.py --workdir runs/seam_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet38.npz

The chain is seeds, a dense CRF, AffinityNet, a random walk and DeepLabv1; ``--only`` runs a part.
One GPU with 16 GB suffices with ``--config.train.batch_size=4``. The published batch of 8 needs
about twice that, or several devices. On a TPU, it takes 4.2 GiB of one chip in bfloat16; see
docs/accelerators.md. The published mIoU on train is 55.41 for the maps (47.43 for the baseline) and
63.61 after the walk, and 64.5 on val for the network. Afterward, `seam_voc_test` makes the archive
for the test server.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import chains, common, published
from wsss_jax.data.sets.base import DataSettings


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = ConfigDict()
    c.name = "seam_voc"
    c.seed = 0
    c.data = DataSettings.defaults("voc2012")
    backbone = dict(name="resnet38")
    c.train = common.training(
        batch_size=8,
        epochs=8,
        method=dict(name="seam", backbone=backbone),
        optimizer=published.optimizer(lr=0.01),
    )
    chains.with_affinities(
        c,
        affinity=published.affinity(backbone),
        segmentation=published.segmentation(backbone),
        walk=dict(alpha=6.0, beta=8.0, steps=64),
        test=published.TEST,
        maps=common.SEAM_MAPS,
    )
    return c
