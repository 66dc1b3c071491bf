"""What the papers' recipes fix: optimizer, AffinityNet, networks."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import common
from wsss_jax.data.augment import Augment
from wsss_jax.training.optimizer import OptimizerSettings


def optimizer(lr: float) -> ConfigDict:
    """SGD of AffinityNet's code, which SSENet and SEAM use.

    The momentum is 5e-4, as published: those programs hand the weight decay to the optimizer as its
    momentum too, and 0.9 is the power of the learning rate's decay, not a momentum. Scores in the
    papers were reached so; a momentum of 0.9 would be ten times the step.
    """
    return OptimizerSettings.defaults(lr=lr, momentum=5e-4, weight_decay=5e-4)


def affinity(backbone: Mapping[str, Any], lr: float = 0.01) -> Any:
    """AffinityNet's training as in its and SEAM's programs: crops of the images as they are."""
    return common.training(
        batch_size=8,
        epochs=8,
        augment=Augment.defaults(long_side=()),
        method=dict(name="affinity", backbone=backbone),
        optimizer=optimizer(lr),
    )


def segmentation(backbone: Mapping[str, Any]) -> Any:
    """DeepLabv1 as SEAM's authors retrain it: real momentum, and all batch norm is trained."""
    still = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    augment = Augment.defaults(long_side=(), scale=(0.5, 1.5), hsv=10, **still)
    return common.training(
        batch_size=10,
        epochs=0,
        steps=20_000,
        augment=augment,
        method=dict(
            name="segmentation",
            backbone=dict(backbone, bn_momentum=3e-4),
            head=dict(name="large_fov", features=512, dilation=12, dropout=0.5, bn_momentum=3e-4),
        ),
        optimizer=dict(lr=0.001, momentum=0.9, weight_decay=5e-4),
    )


TEST = dict(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True, upsample="corners")
"""How SEAM's authors test their network."""
