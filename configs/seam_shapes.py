"""SEAM on the built-in data, a tiny network from scratch: the demo.

    python -m wsss_jax.main --config configs/seam_shapes.py --workdir runs/seam_shapes

Two CPU cores suffice; nothing is downloaded. `seam_chain_shapes` goes on to a network.
"""

from typing import Any

from configs import cam_shapes, published


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c: Any = cam_shapes.get_config()
    c.name = "seam_shapes"
    # As the baseline in all but the method and the finish of its maps.
    for stage in (c.cam_train, c.cam_val):
        stage.update(normalise="min_max", enlarge="corners")
    c.train.method = published.seam(c.train.method.backbone, small_scale=0.5, dropout=0.1)
    return c
