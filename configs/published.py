"""What the papers' recipes fix: optimizer, methods, networks."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import common
from wsss_jax.data.augment import Augment


def optimizer(lr: float) -> ConfigDict:
    """SGD of AffinityNet's code, which SSENet and SEAM use.

    The momentum is 5e-4, as published: those programs hand the weight decay to the optimizer as its
    momentum too, and 0.9 is the power of the learning rate's decay, not a momentum. Scores in the
    papers were reached so; a momentum of 0.9 would be ten times the step.
    """
    return ConfigDict(
        dict(lr=lr, momentum=5e-4, weight_decay=5e-4, schedule="poly", poly_power=0.9)
    )


def seam(backbone: Mapping[str, Any], **changes: object) -> ConfigDict:
    """SEAM as in its paper, with all that its ablations change; `changes` are the recipe's."""
    fields: dict[str, object] = dict(
        name="seam",
        backbone=backbone,
        small_scale=0.3,
        topk=0.2,
        er_weight=1.0,
        ecr_weight=1.0,
        consistency_start=0,
        use_pcm=True,
        transform="rescale",
        max_rotation=20.0,
        max_translation=15,
        map_stride=0,
        dims=(64, 128, 192),
        dropout=0.5,
        head_lr=10.0,
        dtype="float32",
    )
    return ConfigDict(fields | changes)


def pss(backbone: Mapping[str, Any], **changes: object) -> ConfigDict:
    """RCM + MAM as in its paper, with all that its ablations change; `changes` are the recipe's."""
    fields: dict[str, object] = dict(
        name="pss",
        backbone=backbone,
        features=256,
        rcm_weight=1.0,
        mam_weight=1.0,
        mam_start=0,
        threshold=0.3,
        temperature=0.5,
        decay=0.996,
        prototypes="leave_one_out",
        memory=0,
        foreground_only=False,
        attention=True,
        mask_scales=(0.5, 1.0, 1.5, 2.0),
        map_scales=(0.5, 1.0, 2.0),
        region_stride=1,
        head_lr=1.0,
        dtype="float32",
    )
    return ConfigDict(fields | changes)


def ecsnet(backbone: Mapping[str, Any], **changes: object) -> ConfigDict:
    """ECS-Net; `changes` are the recipe's. What its paper leaves open is this program's choice."""
    fields: dict[str, object] = dict(
        name="ecsnet",
        backbone=backbone,
        fill="blur",
        fill_sigma=0.04,
        erase_threshold=0.6,
        dilations=(1, 3, 6, 9),
        overlay_both=False,
        tau_fg=0.5,
        tau_bg=0.1,
        suppression="agree",
        label_weight=1.0,
        label_start=0,
        balanced=True,
        temperature=0.1,
        erased_weight=1.0,
        train_maps=False,
        map_stride=0,
        dims=(64, 128, 192),
        dropout=0.5,
        head_lr=10.0,
        dtype="float32",
    )
    return ConfigDict(fields | changes)


def affinity(backbone: Mapping[str, Any], lr: float = 0.01) -> Any:
    """AffinityNet's training as in its and SEAM's programs: crops of the images as they are."""
    return common.training(
        batch_size=8,
        epochs=8,
        augment=Augment.defaults(long_side=()),
        method=dict(name="affinity", backbone=backbone, dtype="float32"),
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
            balanced=False,
            presence_weight=0.0,
            ema=0.0,
            dtype="float32",
        ),
        optimizer=dict(lr=0.001, momentum=0.9, weight_decay=5e-4, schedule="poly", poly_power=0.9),
    )


TEST = dict(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True, upsample="corners")
"""How SEAM's authors test their network."""
