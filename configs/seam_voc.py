"""SEAM on PASCAL VOC 2012 with ResNet38, as published (CVPR 2020, arXiv 2004.04581).

    python -m wsss_jax.main --config configs/seam_voc.py --workdir runs/seam_voc \
        --config.data.root=DIR/VOCdevkit --config.train.init_weights=resnet38.npz

One GPU or TPU core with 16 GB suffices at ``--config.train.batch_size=4``; the published batch of 8
wants about twice that, or several devices. Published CAM score on train: 55.41 mIoU (baseline
47.43).
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """The recipe; every value can be replaced on the command line."""
    c = ConfigDict()
    c.name = "seam_voc"
    c.seed = 0
    c.data = common.voc_data()
    c.train = common.training(
        batch_size=8,
        epochs=8,
        augment=common.published_augmentation(),
        method=dict(
            name="seam",
            backbone=dict(name="resnet38", remat=False),
            small_scale=0.3,
            topk=0.2,
            er_weight=1.0,
            ecr_weight=1.0,
            dtype="float32",
        ),
        optimizer=common.published_optimizer(lr=0.01),
    )
    common.seeds_and_scores(c, normalise="min_max", enlarge="corners")
    return c
