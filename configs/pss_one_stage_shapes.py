"""RCM + MAM on the built-in data in one training stage, with a tiny network from scratch.

    python -m wsss_jax.main --config configs/pss_one_stage_shapes.py \
        --workdir runs/pss_one_stage_shapes

Two CPU cores suffice, and nothing is downloaded. The attentive maps join after as many steps as in
`pss_shapes`.
"""

from typing import Any

from configs import pss_shapes

STEPS_PER_EPOCH = 800 // 16  # images divided by the batch size


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c = pss_shapes.undivided()
    c.name = "pss_one_stage_shapes"
    c.train.method.mam_start = 12 * STEPS_PER_EPOCH
    return c
