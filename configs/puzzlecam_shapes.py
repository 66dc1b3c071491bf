"""Puzzle-CAM on the built-in data, with a tiny network from scratch.

    python -m wsss_jax.main --config configs/puzzlecam_shapes.py --workdir runs/puzzlecam_shapes

Two CPU cores suffice, and nothing is downloaded. `alpha` is 6/20 of the published one, because L_re
is a mean over all classes, of which there are 6 here and 20 in VOC.
"""

from typing import Any

from configs import cam_shapes, common
from wsss_jax.methods.base import Method


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_shapes.get_config()
    c.name = "puzzlecam_shapes"
    # Only the method and the making of its maps differ from the baseline.
    c.train.method = Method.defaults("puzzle_cam", backbone=c.train.method.backbone, alpha=1.2)
    common.change_maps(c, **common.SSENET_MAPS)
    return c
