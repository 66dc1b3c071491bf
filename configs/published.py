"""Settings of the papers that are not defaults: the optimizer, AffinityNet and the networks."""

from collections.abc import Mapping
from typing import Any

from configs import common

TEST: dict[str, Any] = dict(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75))
"""The scales at which SEAM's authors test their segmentation network."""

STILL: dict[str, float] = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
"""The settings of augmentation without changes of color."""


def optimizer(lr: float) -> dict[str, Any]:
    """Returns the SGD of AffinityNet's code, which SSENet and SEAM use.

    The momentum is 5e-4, as published: these programs also pass the weight decay to the optimizer
    as its momentum, and their 0.9 is the power of the learning rate's decay. The papers reached
    their scores with it; a momentum of 0.9 would make the steps ten times as large.
    """
    return dict(lr=lr, momentum=5e-4, weight_decay=5e-4)


def affinity(backbone: Mapping[str, Any], lr: float = 0.01) -> Any:
    """Returns AffinityNet's training stage of its program and SEAM's, without resizing images."""
    return common.training(
        batch_size=8,
        epochs=8,
        augment=dict(long_side=()),
        method=dict(name="affinity", backbone=backbone),
        optimizer=optimizer(lr),
    )


def segmentation(backbone: Mapping[str, Any]) -> Any:
    """Returns SEAM's training stage of DeepLabv1, with a momentum and all batch norm trained."""
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
