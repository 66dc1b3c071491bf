"""SEAM on the built-in data, from labels to a network, tiny and from scratch: the demo.

    python -m wsss_jax.main --config configs/seam_shapes.py --workdir runs/seam_shapes

Two CPU cores suffice; nothing is downloaded.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import cam_shapes, chains, common, seg_shapes
from wsss_jax.methods.base import Method

STEPS_PER_EPOCH = 800 // 16  # images, a batch


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    baseline: Any = cam_shapes.get_config()
    c: Any = ConfigDict({name: baseline[name] for name in ("name", "seed", "data", "train")})
    c.name = "seam_shapes"
    # As the baseline in all but the method and how its maps are made.
    c.train.method = Method.defaults(
        "seam",
        backbone=c.train.method.backbone,
        small_scale=0.5,
        dropout=0.1,
        # In the seventh of 18 epochs: before that, maps of classes that are not yet recognised
        # would be held down, for empty maps agree perfectly.
        consistency_start=6 * STEPS_PER_EPOCH,
    )
    walk = dict(alpha=10.0, beta=8.0, steps=64)
    chain(c, alphas=(8.0, 24.0), walk=walk, maps=common.SEAM_MAPS)
    return c


def chain(
    c: Any, *, alphas: tuple[float, ...], walk: Mapping[str, Any], maps: Mapping[str, Any]
) -> None:
    """Adds the chain of AffinityNet after `c.train`, with networks as tiny as that one.

    Args:
      c: the recipe so far.
      alphas: backgrounds of the CRF.
      walk: settings of the random walk.
      maps: settings of the maps, see `chains.with_affinities`.
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
    crf: Any = dict(bilateral=(20.0, 5.0, 4.0), iterations=10)  # where crf=True asks for one
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
    # From scratch: the other networks go on from the classifier's backbone.
    c.train_affinity.needs.backbone = "train"
    c.train_segmentation.needs.backbone = "train"
