"""The upper bound of `seam_voc_light`, its segmentation network trained on the true masks.

    python -m wsss_jax.main --config configs/seg_voc_light.py --workdir runs/seg_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. Like that network, it starts from SEAM's backbone. With the workdir of a
finished `seam_voc_light` run with the same values, it does not train SEAM again, and only redraws
the report. `init_weights` are ImageNet weights under torchvision's names.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common, seam_voc_light


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    chain = seam_voc_light.get_config()
    c: Any = ConfigDict()
    c.name = "seg_voc_light"
    c.seed = chain.seed
    c.data = chain.data
    c.train = ConfigDict(chain.train.to_dict())
    c.train_on_masks = ConfigDict(chain.train_segmentation.to_dict())
    c.train_on_masks.needs = ConfigDict(dict(backbone="train"))
    c.train_on_masks.ground_truth = True
    c.train_on_masks.split = c.train.get_ref("split")
    c.bound_val = ConfigDict(chain.masks_val.to_dict())
    c.bound_val.needs = ConfigDict(dict(checkpoint="train_on_masks"))
    c.eval_bound_val = common.score(c, "bound_val", "val")
    common.backbone_weights(c, "train", "train_on_masks")
    common.finish(c, "train", "train_on_masks", "bound_val", "eval_bound_val")
    return c
