"""A plain CAM with IRNet's whole chain, with MobileNetV2 at small image sizes for a laptop.

    python -m wsss_jax.main --config configs/cam_irn_voc_light.py --workdir runs/cam_irn_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names. Only
the stages between the maps and the network's masks differ from `cam_psa_voc_light`.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import cam_psa_voc_light, chains, common, published


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    psa: Any = cam_psa_voc_light.get_config()
    c: Any = ConfigDict({name: psa[name] for name in ("name", "seed", "data", "train")})
    c.name = "cam_irn_voc_light"
    augment = dict(psa.train_affinity.augment, crop=256, scale=(0.75, 1.5), **published.STILL)
    crf: Any = {name: psa.walk[name] for name in ("gaussian", "bilateral", "iterations")}
    chains.with_boundaries(
        c,
        labels=dict(crf, foreground=0.5, background=0.2),
        irnet=common.training(
            batch_size=16,
            epochs=4,
            augment=augment,
            method=dict(name="irnet", backbone=psa.train_affinity.method.backbone, canvas=256),
            optimizer=dict(psa.train.optimizer, lr=0.01),
        ),
        segmentation=ConfigDict(psa.train_segmentation.to_dict()),
        walk=dict(beta=10.0, steps=256, threshold=0.25, crf=True, **crf),
        test=psa.masks_val.to_dict(),
        relabel=psa.masks_train.to_dict(),
    )
    # As there.
    c.train_segmentation.needs.backbone = "train"
    return c
