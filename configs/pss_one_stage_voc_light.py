"""RCM + MAM with MobileNetV2 in one training stage: the seeds, on a laptop.

    python -m wsss_jax.main --config configs/pss_one_stage_voc_light.py \
        --workdir runs/pss_one_stage_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

As `pss_voc_light`, but without a second stage: the attentive maps join in the fourth of the five
epochs, which `mam_start` says in steps of train_aug. For other data give three epochs of yours.
"""

from typing import Any

from configs import pss_voc_light

STEPS_PER_EPOCH = 10_582 // 16  # images of train_aug, a batch


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c = pss_voc_light.undivided()
    c.name = "pss_one_stage_voc_light"
    c.train.method.mam_start = 3 * STEPS_PER_EPOCH
    return c
