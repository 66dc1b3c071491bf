"""SEAM's whole chain with MobileNetV2 at small image sizes for a laptop.

    python -m wsss_jax.main --config configs/seam_voc_light.py --workdir runs/seam_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names. The
recipe differs from the published one by choices that were made on train:

- SEAM's second image is half as large (published: 0.3), because 0.3 of a crop of 224 is too small.
- The maps have stride 8 on a backbone of stride 16, which is three times as fast as stride 8.
- The CRF and the walk start from the background of the threshold that is chosen without ground
  truth, and the CRF also from half and twice its exponent, because fixed exponents do not fit all
  data.
- The CRF's kernel is narrower, because the images are smaller.
- The walk only follows strong affinities (beta 16, published: 8), for twice as many steps.

The segmentation network's crop, epochs, scales, CRF and second head were chosen by its score on
val.
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
    # Unlike pseudo masks, labels are exact about which classes an image shows.
    segmentation.method.presence_weight = 1.0
    # The run is short, so the head's batch norm has to follow quickly; the backbone's is frozen.
    segmentation.method.backbone.bn_momentum = 0.0
    segmentation.method.head.update(features=256, dilation=6, dropout=0.1, bn_momentum=0.02)
    crf: Any = dict(gaussian=(3, 3), bilateral=(50, 5, 4), iterations=10)
    chains.with_affinities(
        c,
        affinity=affinity,
        segmentation=segmentation,
        # The walk's maps have stride 8, and the CRF after it aligns them with outlines.
        walk=dict(alpha=chains.CHOSEN, beta=16.0, steps=128, crf=True, **crf),
        test=dict(scales=(0.75, 1.0, 1.25, 1.5), crf=True, **crf),
        maps=common.SEAM_MAPS,
        alphas=(0.5, 1.0, 2.0),
        alpha_unit=chains.CHOSEN,
        bilateral=crf["bilateral"],
        relabel=dict(scales=(1.0, 1.5)),
    )
    # So short a run is not enough from ImageNet weights; the network starts from SEAM's backbone.
    c.train_segmentation.needs.backbone = "train"
    return c
