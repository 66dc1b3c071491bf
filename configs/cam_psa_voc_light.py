"""A plain CAM with AffinityNet's whole chain, with MobileNetV2 at small image sizes for a laptop.

    python -m wsss_jax.main --config configs/cam_psa_voc_light.py --workdir runs/cam_psa_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names. Only
the method and the making of its maps differ from `seam_voc_light`, so the difference of their
scores is what SEAM gains for the final network.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import cam_voc_light, common, seam_voc_light


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = seam_voc_light.get_config()
    c.name = "cam_psa_voc_light"
    plain: Any = cam_voc_light.get_config()
    c.train.method = ConfigDict(plain.train.method.to_dict())
    common.change_maps(c, **common.PSA_MAPS)
    return c
