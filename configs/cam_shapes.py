"""The plain CAM on the built-in data, with a tiny network from scratch, as the demo's baseline.

    python -m wsss_jax.main --config configs/cam_shapes.py --workdir runs/cam_shapes

Two CPU cores suffice, and nothing is downloaded.
"""

from ml_collections import ConfigDict

from configs import common
from wsss_jax.data.sets.base import DataSettings


def get_config() -> ConfigDict:
    """Returns the recipe; the command line can replace every value."""
    c = ConfigDict()
    c.name = "cam_shapes"
    c.seed = 0
    c.data = DataSettings.defaults("shapes")
    c.train = common.training(
        split="train",
        batch_size=16,
        epochs=18,
        augment=dict(crop=96, long_side=(96, 128), hue=0.0),
        method=dict(name="cam", backbone=dict(name="tiny"), dropout=0.1),
        # From scratch, the network learns the heads of the creatures within a few epochs with
        # AdamW, but not with SGD.
        optimizer=dict(name="adamw", lr=0.001),
    )
    common.seeds_and_scores(c, scales=(0.75, 1.0))
    return c
