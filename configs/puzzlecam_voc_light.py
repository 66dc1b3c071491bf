"""Puzzle-CAM's seeds with MobileNetV2 at small image sizes for a laptop.

    python -m wsss_jax.main --config configs/puzzlecam_voc_light.py \
        --workdir runs/puzzlecam_voc_light --config.data.root=DIR/VOCdevkit \
        --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names.
Batch norm keeps its statistics of ImageNet, as in the other light recipes, because batches are
small.
"""

from typing import Any

from configs import cam_voc_light, common
from wsss_jax.methods.base import Method


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c: Any = cam_voc_light.get_config()
    c.name = "puzzlecam_voc_light"
    # Only the method and the making of its maps differ from the baseline.
    c.train.method = Method.defaults("puzzle_cam", backbone=c.train.method.backbone)
    common.change_maps(c, **common.SSENET_MAPS)
    return c
