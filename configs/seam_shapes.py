"""SEAM on the built-in data, a tiny network from scratch: the demo.

    python -m wsss_jax.main --config configs/seam_shapes.py --workdir runs/seam_shapes

Two CPU cores suffice; nothing is downloaded. The published recipe starts from ImageNet weights: its
losses compare maps, which a network from scratch does not have yet. Here a plain classifier is
trained first, and SEAM goes on from its backbone, with maps of half its stride: the network is as
small as the images. `seam_chain_shapes` goes on to a segmentation network.
"""

from typing import Any

from configs import cam_shapes, common


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c: Any = cam_shapes.get_config()
    c.name = "seam_shapes"
    common.trained_before(c, "train_classifier", "backbone").epochs = 12
    c.train.epochs = 3
    c.train.method = common.published_seam(
        c.train.method.backbone,
        map_stride=4,
        small_scale=0.5,
        dims=(32, 64, 64),
        dropout=0.1,
        head_lr=2.0,
    )
    c.train.optimizer.lr = 0.0005
    for stage in (c.cam_train, c.cam_val):
        stage.update(normalise="min_max", enlarge="corners")
    return c
