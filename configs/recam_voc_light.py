"""ReCAM's seeds with MobileNetV2 at small image sizes for a laptop.

    python -m wsss_jax.main --config configs/recam_voc_light.py --workdir runs/recam_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names. The
training starts from the CAM of `cam_voc_light`.
"""

from typing import Any

from configs import cam_voc_light, common


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_voc_light.get_config()
    c.name = "recam_voc_light"
    common.recam_after_cam(c)
    c.train.epochs = 4
    # A tenth of the CAM's rate, because the network is trained already.
    c.train.optimizer.lr = 5e-4
    return c
