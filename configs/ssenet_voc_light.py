"""SSENet's seeds with MobileNetV2 at small image sizes for a laptop.

    python -m wsss_jax.main --config configs/ssenet_voc_light.py --workdir runs/ssenet_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names. The
second image is half as large (published: 0.3), because 0.3 of a crop of 224 is too small. The
equivariance loss counts five times, which was chosen on train: with the published weight, it hardly
falls in a short run.
"""

from typing import Any

from configs import cam_voc_light, common
from wsss_jax.methods.base import Method


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_voc_light.get_config()
    c.name = "ssenet_voc_light"
    # Only the method and the making of its maps differ from the baseline.
    c.train.method = Method.defaults(
        "ssenet", backbone=c.train.method.backbone, small_scale=0.5, ser_weight=5.0
    )
    common.change_maps(c, **common.SSENET_MAPS)
    return c
