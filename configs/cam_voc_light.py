"""The plain CAM with MobileNetV2 at small image sizes, as the baseline for a laptop.

    python -m wsss_jax.main --config configs/cam_voc_light.py --workdir runs/cam_voc_light \
        --config.data.root=DIR/VOCdevkit --config.init_weights=mobilenet_v2.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names.
"""

from ml_collections import ConfigDict

from configs import common
from wsss_jax.data.sets.base import DataSettings


def get_config() -> ConfigDict:
    """Returns the recipe; the command line can replace every value."""
    c = ConfigDict()
    c.name = "cam_voc_light"
    c.seed = 0
    c.data = DataSettings.defaults("voc2012")
    c.train = common.training(
        batch_size=16,
        epochs=5,
        augment=dict(crop=224, long_side=(224, 384)),
        method=dict(name="cam", backbone=dict(name="mobilenet_v2")),
        # New layers learn at ten times this rate. A short schedule needs a real momentum.
        optimizer=dict(lr=0.005, momentum=0.9, weight_decay=5e-4),
    )
    common.seeds_and_scores(c)
    return c
