"""ECS-Net's seeds with MobileNetV2 at small image sizes for a laptop.

    python -m wsss_jax.main --config configs/ecsnet_voc_light.py --workdir runs/ecsnet_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names. As
in SEAM's light recipe, the maps have stride 8 on a backbone of stride 16. The dilations are about
half as large as published, because they count features of stride 16.
"""

from typing import Any

from configs import cam_voc_light, common
from wsss_jax.methods.base import Method


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_voc_light.get_config()
    c.name = "ecsnet_voc_light"
    # Only the method and the making of its maps differ from the baseline.
    common.change_maps(c, **common.SEAM_MAPS)
    c.train.method = Method.defaults(
        "ecsnet", backbone=c.train.method.backbone, map_stride=8, dilations=(1, 2, 3, 4)
    )
    return c
