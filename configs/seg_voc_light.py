"""The segmentation network of `seam_voc_light` trained on the true masks: its upper bound.

    python -m wsss_jax.main --config configs/seg_voc_light.py --workdir runs/seg_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2_imagenet.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common, seam_voc_light


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    chain = seam_voc_light.get_config()
    c: Any = ConfigDict()
    c.name = "seg_voc_light"
    c.seed = chain.seed
    c.data = chain.data
    c.train = ConfigDict(chain.train_segmentation.to_dict())
    del c.train.needs
    c.train.segmentation = True
    c.masks_val = ConfigDict(chain.masks_val.to_dict())
    c.masks_val.needs = ConfigDict(dict(checkpoint="train"))
    c.eval_masks_val = common.score(c, "masks_val", "val")
    common.backbone_weights(c, "train")
    common.finish(c, "train", "masks_val", "eval_masks_val")
    return c
