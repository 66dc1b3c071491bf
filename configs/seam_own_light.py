"""Photographs of one's own, from image-level labels alone to masks and a network: on a laptop.

    python -m wsss_jax.main --config configs/seam_own_light.py --workdir runs/seam_own_light \
        --config.data.root=DIR --config.data.labels=labels.csv --config.data.classes=classes.txt \
        --config.init_weights=mobilenet_v2.npz

`seam_voc_light` where no mask is needed or looked at: the background of maps, CRF and walk comes
from the threshold at which the maps' outlines follow the colors of the images best. `DIR` holds
`JPEGImages/` and `ImageSets/Segmentation/train.txt`. For a first look there are the masks of the
maps (`pseudo_labels`); the walk's (`walk`) are better, the network's, restricted to the labels of
their images, the best (`masks_train`). The epochs are enough for a thousand images, fewer images
want more. Two CPU cores suffice.
"""

from typing import Any

from configs import common, seam_voc_light
from wsss_jax.stages.base import Stage


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c: Any = seam_voc_light.get_config()
    c.name = "seam_own_light"
    c.data.masks = "none"
    c.train.split = "train"
    c.pseudo_labels = Stage.defaults(
        "pseudo_labels",
        needs=dict(cams="cam", chosen="threshold"),
        split=c.train.get_ref("split"),
        threshold="from:chosen",
    )
    # What looks at masks or at images of val.
    for name in ("cam_val", "masks_val", *(n for n in c.stages if c[n].type == "evaluate")):
        del c[name]
    del c.protocol
    walked = ("crf", "train_affinity", "walk", "train_segmentation", "masks_train")
    common.finish(c, "train", "cam", "threshold", "pseudo_labels", *walked)
    return c
