"""The demo: SEAM on the built-in data, from labels to a network, with tiny networks from scratch.

    python -m wsss_jax.main --config configs/seam_shapes.py --workdir runs/seam_shapes

Two CPU cores suffice, and nothing is downloaded.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import cam_shapes, chains, common, seg_shapes
from wsss_jax.methods.base import Method

STEPS_PER_EPOCH = 800 // 16  # images divided by the batch size


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    baseline: Any = cam_shapes.get_config()
    c: Any = ConfigDict({name: baseline[name] for name in ("name", "seed", "data", "train")})
    c.name = "seam_shapes"
    # Only the method and the making of its maps differ from the baseline.
    c.train.method = Method.defaults(
        "seam",
        backbone=c.train.method.backbone,
        small_scale=0.5,
        dropout=0.1,
        # This is in the seventh of 18 epochs. Earlier, it would suppress the maps of classes that
        # are not yet recognized, because empty maps agree perfectly.
        consistency_start=6 * STEPS_PER_EPOCH,
    )
    walk = dict(alpha=10.0, beta=8.0, steps=64)
    chain(c, alphas=(8.0, 24.0), walk=walk, maps=common.SEAM_MAPS)
    return c


def chain(
    c: Any, *, alphas: tuple[float, ...], walk: Mapping[str, Any], maps: Mapping[str, Any]
) -> None:
    """Adds the chain of AffinityNet after `c.train`, with networks that are as tiny.

    Args:
      c: the recipe so far.
      alphas: the exponents of the CRF's backgrounds.
      walk: the settings of the random walk.
      maps: the settings of the maps; see `chains.with_affinities`.
    """
    affinity = common.training(
        split="train",
        batch_size=16,
        epochs=3,
        augment=dict(c.train.augment, long_side=()),
        method=dict(
            name="affinity",
            backbone=c.train.method.backbone,
            dims=(32, 32, 64, 64),
            map_stride=4,
        ),
        optimizer=c.train.optimizer,
    )
    segmentation: Any = seg_shapes.get_config().train
    segmentation.ground_truth = False
    segmentation.epochs = 5
    crf: Any = dict(bilateral=(20.0, 5.0, 4.0), iterations=10)  # used where crf=True
    chains.with_affinities(
        c,
        affinity=affinity,
        segmentation=segmentation,
        walk=crf | dict(walk),
        test=dict(scales=(0.75, 1.0), **crf),
        maps=dict(maps) | dict(scales=(0.75, 1.0)),
        alphas=alphas,
        bilateral=crf["bilateral"],
    )
    # There are no ImageNet weights, so the other networks start from the classifier's backbone.
    c.train_affinity.needs.backbone = "train"
    c.train_segmentation.needs.backbone = "train"
