"""SEAM's maps and walk on PASCAL VOC 2012 with the networks that its authors published.

    python -m wsss_jax.main --config configs/seam_voc_released.py \
        --workdir runs/seam_voc_released --config.data.root=DIR/VOCdevkit

Nothing is trained. ``resnet38_SEAM.pth`` and ``resnet38_aff_SEAM.pth`` are expected in the folder
that `WSSS_JAX_WEIGHTS` names, or where ``--config.maps_network.weights`` and
``--config.walk_network.weights`` say. All other settings are those of `seam_voc`. The published
mIoU on train is 55.4 for the maps and 63.6 after the walk. ``--only maps_network,cam,eval_cam``
runs the first half, which needs the first file alone.
"""

from typing import Any

from configs import chains, seam_voc


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    return chains.released(
        seam_voc.get_config(), "seam_voc_released", maps="resnet38_seam", walk="resnet38_aff_seam"
    )
