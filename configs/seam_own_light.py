"""Masks of photographs of one's own, from image-level labels alone: SEAM with MobileNetV2.

    python -m wsss_jax.main --config configs/seam_own_light.py --workdir runs/seam_own_light \
        --config.data.root=DIR --config.data.labels=labels.csv --config.data.classes=classes.txt \
        --config.init_weights=mobilenet_v2.npz

No mask is needed or looked at: the background threshold is the one at which the maps' outlines
follow the colours of the images best. `DIR` holds `JPEGImages/` and
`ImageSets/Segmentation/train.txt`. Training as in `seam_voc_light`: five epochs are enough for a
thousand images, fewer images want more. Two CPU cores suffice.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common, seam_voc_light


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    whole = seam_voc_light.get_config()
    c: Any = ConfigDict()
    c.name = "seam_own_light"
    c.seed = 0
    c.data = common.voc_data()
    c.data.masks = "none"
    c.train, c.cam, c.threshold = (
        ConfigDict(whole[name].to_dict()) for name in ("train", "cam", "threshold")
    )
    for stage in (c.train, c.cam, c.threshold):
        stage.split = "train"
    c.pseudo_labels = ConfigDict(
        dict(
            type="pseudo_labels",
            needs=dict(cams="cam", chosen="threshold"),
            split="train",
            threshold="from:chosen",
        )
    )
    common.backbone_weights(c, "train")
    common.finish(c, "train", "cam", "threshold", "pseudo_labels")
    return c
