"""ReCAM on the built-in data, with a tiny network from scratch.

    python -m wsss_jax.main --config configs/recam_shapes.py --workdir runs/recam_shapes

Two CPU cores suffice, and nothing is downloaded. The training starts from the CAM of `cam_shapes`.
Its rates were chosen on train.
"""

from typing import Any

from configs import cam_shapes, common


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_shapes.get_config()
    c.name = "recam_shapes"
    common.recam_after_cam(c, dropout=0.1)
    c.train.epochs = 4
    c.train.optimizer.lr = 1e-4
    return c
