"""RCM + MAM on PASCAL VOC 2012 with ResNet38 in one training stage (arXiv 2112.05351): the seeds.

    python -m wsss_jax.main --config configs/pss_one_stage_voc.py --workdir runs/pss_one_stage_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet38.npz

As `pss_voc`, but the attentive maps join the regional contrast in the fourth epoch instead of a
second stage: half the epochs. For GPUs or TPUs.
"""

from typing import Any

from configs import pss_voc

STEPS_PER_EPOCH = 10_582 // 8  # images of train_aug, a batch


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c = pss_voc.undivided()
    c.name = "pss_one_stage_voc"
    c.train.method.mam_start = 3 * STEPS_PER_EPOCH
    return c
