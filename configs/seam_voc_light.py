"""SEAM with MobileNetV2 at small image sizes, from labels to a network: on a laptop.

    python -m wsss_jax.main --config configs/seam_voc_light.py --workdir runs/seam_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names. It
differs from the published recipe, by choices made on train: SEAM's second image is half as large
(published: 0.3), since a crop of 224 leaves too little of it; the maps have stride 8 on a backbone
of 16, which is three times as fast as one of 8; CRF and walk start from the background that the
threshold chosen without ground truth stands for, the CRF also from half and twice its power, as
fixed powers fit some data and miss others; the CRF's kernel is narrower, as images are smaller; the
walk follows strong affinities only (beta 16, published: 8) for twice as many steps. The
segmentation network's crop, epochs, scales, CRF and second head were chosen with its score on val
in sight.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import chains, common, published
from wsss_jax.data.sets.base import DataSettings


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = ConfigDict()
    c.name = "seam_voc_light"
    c.seed = 0
    c.data = DataSettings.defaults("voc2012")
    backbone = dict(name="mobilenet_v2")
    # New layers learn at ten times this rate. A short schedule needs a real momentum.
    optimizer = dict(lr=0.005, momentum=0.9, weight_decay=5e-4)
    c.train = common.training(
        batch_size=16,
        epochs=5,
        augment=dict(crop=224, long_side=(224, 384)),
        method=dict(name="seam", backbone=backbone, map_stride=8, small_scale=0.5),
        optimizer=optimizer,
    )
    affinity = published.affinity(backbone)
    affinity.update(batch_size=16, epochs=4, optimizer=optimizer)
    affinity.augment.crop = 224
    segmentation = published.segmentation(backbone)
    segmentation.update(batch_size=16, epochs=15, steps=0, optimizer=optimizer)
    segmentation.augment.update(crop=256, scale=(0.75, 1.5))
    # Labels are exact, pseudo masks are not: they say which animal it is.
    segmentation.method.presence_weight = 1.0
    # A short run: batch norm of the head has to follow quickly, that of the backbone stays.
    segmentation.method.backbone.bn_momentum = 0.0
    segmentation.method.head.update(features=256, dilation=6, dropout=0.1, bn_momentum=0.02)
    crf: Any = dict(gaussian=(3, 3), bilateral=(50, 5, 4), iterations=10)
    chains.with_affinities(
        c,
        affinity=affinity,
        segmentation=segmentation,
        # The walk's maps have stride 8; the CRF after it takes them to the outlines.
        walk=dict(alpha=chains.CHOSEN, beta=16.0, steps=128, crf=True, **crf),
        test=dict(scales=(0.75, 1.0, 1.25, 1.5), crf=True, **crf),
        maps=common.SEAM_MAPS,
        alphas=(0.5, 1.0, 2.0),
        alpha_unit=chains.CHOSEN,
        bilateral=crf["bilateral"],
        relabel=dict(scales=(1.0, 1.5)),
    )
    # From ImageNet so short a run is not enough: the network goes on from SEAM's backbone.
    c.train_segmentation.needs.backbone = "train"
    return c
