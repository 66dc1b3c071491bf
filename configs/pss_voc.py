"""RCM + MAM's seeds on PASCAL VOC 2012 with ResNet38, as published (arXiv 2112.05351).

    python -m wsss_jax.main --config configs/pss_voc.py --workdir runs/pss_voc \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet38.npz

There are two training stages. `train_rcm` has the regional contrast alone, and `train` starts from
its weights and adds the attentive maps. The paper does not state the learning rate and the epochs.
Regions are compared at every pixel with 256 features, as published; a `region_stride` of 2 in both
stages takes a quarter of that memory. It needs GPUs or TPUs.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common, published
from wsss_jax.data.sets.base import DataSettings


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c = undivided()
    c.name = "pss_voc"
    common.contrast_first(c)
    return c


def undivided() -> Any:
    """The recipe in one training stage, without a name."""
    c: Any = ConfigDict()
    c.seed = 0
    c.data = DataSettings.defaults("voc2012")
    c.train = common.training(
        batch_size=8,
        epochs=8,
        augment=dict(
            crop=384,
            long_side=(256, 512),
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            jitter_p=0.8,
            grayscale_p=0.1,
        ),
        method=dict(name="pss", backbone=dict(name="resnet38", dropout=(0.2, 0.2), remat=True)),
        optimizer=published.optimizer(lr=0.01),
    )
    common.seeds_and_scores(c)
    return c
