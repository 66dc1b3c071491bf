"""LPCAM with MobileNetV2 at small image sizes for a laptop, after the CAM of `cam_voc_light`.

    python -m wsss_jax.main --config configs/lpcam_voc_light.py --workdir runs/lpcam_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names. If
the folder ``train`` of a finished `cam_voc_light` is copied into the new one, the training is not
repeated.
"""

from typing import Any

from configs import cam_voc_light, common


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_voc_light.get_config()
    c.name = "lpcam_voc_light"
    common.local_prototypes(c)
    return c
