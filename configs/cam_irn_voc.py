"""IRNet's program on PASCAL VOC 2012 with ResNet-50 (CVPR 2019, arXiv 1904.05044), in full.

    python -m wsss_jax.main --config configs/cam_irn_voc.py --workdir runs/cam_irn_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet50.npz

The chain is a plain CAM, labels from two dense CRFs, IRNet, a random walk that its boundaries stop,
and DeepLabv2; ``--only`` runs a part. The weights are torchvision's of ImageNet, as an ``.npz``
file of arrays by name. It needs one GPU or TPU core with 16 GB, or several devices. The published
mIoU of the pseudo masks on train is 66.5, and that of the network 63.5 on val and 64.8 on test.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import chains, common, published
from wsss_jax.data.sets.base import DataSettings

# These are crops of 512 without changes of color. The CAM and IRNet resize images differently.
_AUGMENT = dict(crop=512, **published.STILL)
# The momentum has the value of the weight decay, as published; see published.optimizer.
_OPTIMIZER = dict(lr=0.1, momentum=1e-4, weight_decay=1e-4)


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = ConfigDict()
    c.name = "cam_irn_voc"
    c.seed = 0
    c.data = DataSettings.defaults("voc2012")
    backbone = dict(name="resnet")
    c.train = common.training(
        batch_size=16,
        epochs=5,
        augment=dict(_AUGMENT, long_side=(320, 640)),
        # Gradients stop after layer2.
        method=dict(name="cam", backbone=dict(backbone, frozen_layers=2), dropout=0.0),
        optimizer=_OPTIMIZER,
    )
    chains.with_boundaries(
        c,
        labels={},
        irnet=common.training(
            batch_size=32,
            epochs=3,
            augment=dict(_AUGMENT, long_side=(), scale=(0.5, 1.5)),
            # With a canvas of the size of the crop, group norm sees as much padding as in training.
            method=dict(name="irnet", backbone=backbone, canvas=512),
            optimizer=_OPTIMIZER,
        ),
        segmentation=_segmentation(dict(backbone, output_stride=8, dilated=True)),
        walk=dict(beta=10.0, steps=256, threshold=0.25),
        test=dict(scales=(0.5, 0.75, 1.0)),
    )
    common.change_maps(c, **common.SSENET_MAPS)
    c.protocol = "present"  # as IRNet's program counts; see common.score
    return c


def _segmentation(backbone: dict[str, Any]) -> Any:
    """DeepLabv2 (arXiv 1606.00915) with its own settings; IRNet's paper gives none."""
    section = published.segmentation(backbone)
    section.augment.crop = 321
    section.augment.hsv = 0
    section.method.backbone.bn_momentum = 0.0
    section.method.head = ConfigDict(dict(name="aspp"))
    section.method.loss_scales = (0.5, 0.75)
    section.optimizer.lr = 2.5e-4
    return section
