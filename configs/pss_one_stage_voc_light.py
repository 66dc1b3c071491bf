"""RCM + MAM's seeds with MobileNetV2 in one training stage for a laptop.

    python -m wsss_jax.main --config configs/pss_one_stage_voc_light.py \
        --workdir runs/pss_one_stage_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Unlike in `pss_voc_light`, there is no second stage: the attentive maps join in the fourth of five
epochs. `mam_start` gives this in steps of train_aug; for other data, set it to three epochs.
"""

from typing import Any

from configs import pss_voc_light

STEPS_PER_EPOCH = 10_582 // 16  # images of train_aug divided by the batch size


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c = pss_voc_light.undivided()
    c.name = "pss_one_stage_voc_light"
    c.train.method.mam_start = 3 * STEPS_PER_EPOCH
    return c
