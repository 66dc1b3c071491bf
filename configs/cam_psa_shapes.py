"""A plain CAM with AffinityNet's whole chain on the built-in data, tiny and from scratch.

    python -m wsss_jax.main --config configs/cam_psa_shapes.py --workdir runs/cam_psa_shapes

Two CPU cores suffice; nothing is downloaded.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import cam_shapes, seam_shapes


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c: Any = seam_shapes.get_config()
    c.name = "cam_psa_shapes"
    # As that chain in all but the method and the finish of its maps.
    plain: Any = cam_shapes.get_config()
    c.train.method = ConfigDict(plain.train.method.to_dict())
    for stage in (c.cam, c.cam_val):
        stage.update(normalise="max", enlarge="direct")
    return c
