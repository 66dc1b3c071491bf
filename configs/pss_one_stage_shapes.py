"""RCM + MAM on the built-in data in one training stage, a tiny network from scratch.

    python -m wsss_jax.main --config configs/pss_one_stage_shapes.py \
        --workdir runs/pss_one_stage_shapes

Two CPU cores suffice; nothing is downloaded. As `pss_shapes`, with as many steps before the
attentive maps join.
"""

from typing import Any

from configs import pss_shapes

STEPS_PER_EPOCH = 800 // 16  # images, a batch


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c = pss_shapes.undivided()
    c.name = "pss_one_stage_shapes"
    c.train.method.mam_start = 12 * STEPS_PER_EPOCH
    return c
