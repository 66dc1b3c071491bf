"""IRNet's maps and walk on PASCAL VOC 2012 with networks that its authors' program trained.

    python -m wsss_jax.main --config configs/irn_voc_released.py \
        --workdir runs/irn_voc_released --config.data.root=DIR/VOCdevkit

Nothing is trained. ``res50_cam.pth`` and ``res50_irn.pth``, as the program calls them, are expected
in the folder that `WSSS_JAX_WEIGHTS` names, or where ``--config.maps_network.weights`` and
``--config.walk_network.weights`` say. All other settings are those of `cam_irn_voc`. The published
mIoU after the walk is 66.5 on train.
"""

from typing import Any

from configs import cam_irn_voc, chains


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    return chains.released(
        cam_irn_voc.get_config(), "irn_voc_released", maps="res50_cam.pth", walk="res50_irn.pth"
    )
