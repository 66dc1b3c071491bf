"""LPCAM on PASCAL VOC 2012 with ResNet-50 and IRNet (CVPR 2023, arXiv 2303.00399), in full.

    python -m wsss_jax.main --config configs/lpcam_voc.py --workdir runs/lpcam_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet50.npz

The chain is that of `cam_irn_voc`, with LPCAM's maps in place of the CAM's and the published
thresholds; ``--only`` runs a part. If the folder ``train`` of a finished `cam_irn_voc` is copied
into the new one, this training is not repeated. The weights are torchvision's of ImageNet. It needs
one GPU or TPU core with 16 GB, or several devices.
"""

from typing import Any

from configs import cam_irn_voc, common


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_irn_voc.get_config()
    c.name = "lpcam_voc"
    common.local_prototypes(c)
    # At the threshold of the authors, the score is reported for comparison.
    c.eval_cam_train.compare.published = 0.3
    c.irn_labels.update(foreground=0.45, background=0.25)
    c.walk.threshold = 0.35
    return c
