"""A plain CAM with AffinityNet's whole chain, MobileNetV2 at small image sizes: on a laptop.

    python -m wsss_jax.main --config configs/cam_psa_voc_light.py --workdir runs/cam_psa_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names. As
`seam_voc_light` in all but the method and how its maps are made: what SEAM is worth to the network
in the end is the difference of the two.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import cam_voc_light, common, seam_voc_light


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c: Any = seam_voc_light.get_config()
    c.name = "cam_psa_voc_light"
    plain: Any = cam_voc_light.get_config()
    c.train.method = ConfigDict(plain.train.method.to_dict())
    common.change_maps(c, **common.PSA_MAPS)
    return c
