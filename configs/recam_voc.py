"""ReCAM on PASCAL VOC 2012 with ResNet-50 and IRNet (CVPR 2022, arXiv 2203.00962), in full.

    python -m wsss_jax.main --config configs/recam_voc.py --workdir runs/recam_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet50.npz

The chain is that of `cam_irn_voc`: a plain CAM, from which ReCAM starts, labels from two dense
CRFs, IRNet, a random walk that its boundaries stop, and DeepLabv2; ``--only`` runs a part. The
weights are torchvision's of ImageNet. It needs one GPU or TPU core with 16 GB, or several devices.
"""

from typing import Any

from configs import cam_irn_voc, common


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_irn_voc.get_config()
    c.name = "recam_voc"
    # Unlike IRNet's program, ReCAM's trains layer1 and layer2 too, also for the CAM.
    c.train.method.backbone.frozen_layers = 0
    common.recam_after_cam(c)
    c.train.epochs = 4
    # The second classifier learns at ten times this rate. The momentum is the published one, which
    # has the value of the weight decay by a slip.
    c.train.optimizer.lr = 5e-5
    c.irn_labels.update(foreground=0.35, background=0.1)
    c.walk.threshold = 0.28
    return c
