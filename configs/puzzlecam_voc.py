"""Puzzle-CAM on PASCAL VOC 2012 with ResNet-50 (ICIP 2021, arXiv 2101.11253), and a whole chain.

    python -m wsss_jax.main --config configs/puzzlecam_voc.py --workdir runs/puzzlecam_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet50.npz

The maps, the thresholds of the labels after them and the walk are those of the authors' program;
IRNet and the segmentation network are those of `cam_irn_voc`. The weights are torchvision's of
ImageNet, as an ``.npz`` file of arrays by name. It needs one GPU with 80 GB, or several devices,
because batch norm is trained on batches of 32.
"""

from typing import Any

from configs import cam_irn_voc
from wsss_jax.methods.base import Method


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_irn_voc.get_config()
    c.name = "puzzlecam_voc"
    c.train.method = Method.defaults(
        "puzzle_cam", backbone=dict(name="resnet", frozen_layers=-1, bn_momentum=0.1)
    )
    c.train.batch_size = 32
    c.train.epochs = 15
    # The momentum of 1e-4 is the weight decay, which the authors' program passes in its place.
    c.train.optimizer.nesterov = True
    c.irn_labels.foreground = 0.4
    c.irn_labels.background = 0.1
    c.walk.threshold = 0.35
    return c
