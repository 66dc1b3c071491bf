"""RCM + MAM's seeds with MobileNetV2 at small image sizes for a laptop.

    python -m wsss_jax.main --config configs/pss_voc_light.py --workdir runs/pss_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names. The
two training stages share the epochs of the other light recipes. Regions are compared at stride 8,
and the most expensive scales of the published recipe are left out.
"""

from typing import Any

from configs import cam_voc_light, common
from wsss_jax.methods.base import Method


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c = undivided()
    c.name = "pss_voc_light"
    common.contrast_first(c)
    c.train_rcm.epochs, c.train.epochs = 3, 2
    return c


def undivided() -> Any:
    """The recipe in one training stage of as many epochs, under the name of the baseline."""
    c: Any = cam_voc_light.get_config()
    c.train.method = Method.defaults(
        "pss",
        backbone=c.train.method.backbone,
        decay=0.99,  # The run is short, so the EMA teacher has to follow faster.
        mask_scales=(0.5, 1.0, 1.5),
        map_scales=(0.5, 1.0),
        region_stride=8,
        head_lr=10.0,
    )
    return c
