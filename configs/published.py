"""What the papers' recipes fix where it is no default: optimizer, AffinityNet, networks."""

from collections.abc import Mapping
from typing import Any

from configs import common

TEST: dict[str, Any] = dict(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75))
"""How SEAM's authors test their segmentation network."""

STILL: dict[str, float] = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
"""Augmentation without changes of color."""


def optimizer(lr: float) -> dict[str, Any]:
    """SGD of AffinityNet's code, which SSENet and SEAM use.

    The momentum is 5e-4, as published: those programs hand the weight decay to the optimizer as its
    momentum too, and 0.9 is the power of the learning rate's decay, not a momentum. Scores in the
    papers were reached so; a momentum of 0.9 would be ten times the step.
    """
    return dict(lr=lr, momentum=5e-4, weight_decay=5e-4)


def affinity(backbone: Mapping[str, Any], lr: float = 0.01) -> Any:
    """AffinityNet's training as in its and SEAM's programs: crops of the images as they are."""
    return common.training(
        batch_size=8,
        epochs=8,
        augment=dict(long_side=()),
        method=dict(name="affinity", backbone=backbone),
        optimizer=optimizer(lr),
    )


def segmentation(backbone: Mapping[str, Any]) -> Any:
    """DeepLabv1 as SEAM's authors retrain it: real momentum, and all batch norm is trained."""
    return common.training(
        batch_size=10,
        steps=20_000,
        augment=dict(long_side=(), scale=(0.5, 1.5), hsv=10, **STILL),
        method=dict(
            name="segmentation",
            backbone=dict(backbone, bn_momentum=3e-4),
            head=dict(name="large_fov"),
        ),
        optimizer=dict(lr=0.001, momentum=0.9, weight_decay=5e-4),
    )
