"""The segmentation network of SEAM's authors on PASCAL VOC 2012, DeepLabv1 on ResNet38.

    python -m wsss_jax.main --config configs/seg_voc_released.py \
        --workdir runs/seg_voc_released --config.data.root=DIR/VOCdevkit

Nothing is trained. ``deeplabv1_resnet38_VOCDataset_itr20000_sub0_all_64.754.pth``, a network of
SEAM's pseudo labels, is expected in the folder that `WSSS_JAX_WEIGHTS` names, or where
``--config.network.weights`` says. As in its authors' program, a dense CRF with one iteration
follows the mean logits of six scales and their flips. The mIoU on val is 64.75, as in the name of
the file.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common, seam_voc
from wsss_jax.stages.base import Stage


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    chain = seam_voc.get_config()
    c: Any = ConfigDict()
    c.name = "seg_voc_released"
    c.seed = chain.seed
    c.data = chain.data
    c.network = Stage.defaults(
        "released",
        split="val",
        method=chain.train_segmentation.method.to_dict(),
        weights="deeplabv1_resnet38_seam",
    )
    c.masks_val = ConfigDict(chain.masks_val.to_dict())
    c.masks_val.needs = ConfigDict(dict(checkpoint="network"))
    c.masks_val.crf = True
    c.eval_masks_val = common.score(c, "masks_val", "val")
    common.finish(c, "network", "masks_val", "eval_masks_val")
    return c
