"""RCM + MAM's seeds on PASCAL VOC 2012 with ResNet38 in one training stage (arXiv 2112.05351).

    python -m wsss_jax.main --config configs/pss_one_stage_voc.py --workdir runs/pss_one_stage_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet38.npz

Unlike in `pss_voc`, the attentive maps join the regional contrast in the fourth epoch instead of a
second stage, so it takes half the epochs. It needs GPUs or TPUs.
"""

from typing import Any

from configs import pss_voc

STEPS_PER_EPOCH = 10_582 // 8  # images of train_aug divided by the batch size


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c = pss_voc.undivided()
    c.name = "pss_one_stage_voc"
    c.train.method.mam_start = 3 * STEPS_PER_EPOCH
    return c
