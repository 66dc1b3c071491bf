"""A plain CAM with AffinityNet's whole chain on the built-in data, with tiny networks from scratch.

    python -m wsss_jax.main --config configs/cam_psa_shapes.py --workdir runs/cam_psa_shapes

Two CPU cores suffice, and nothing is downloaded. The backgrounds, the walk and its final CRF were
chosen on train.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import cam_shapes, common, seam_shapes


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    plain: Any = cam_shapes.get_config()
    c: Any = ConfigDict({name: plain[name] for name in ("name", "seed", "data", "train")})
    c.name = "cam_psa_shapes"
    walk = dict(alpha=3.0, beta=16.0, steps=16, crf=True)
    seam_shapes.chain(c, alphas=(3.0, 8.0), walk=walk, maps=common.PSA_MAPS)
    return c
