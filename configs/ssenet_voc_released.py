"""SSENet's maps and walk on PASCAL VOC 2012 with networks that its authors' program trained.

    python -m wsss_jax.main --config configs/ssenet_voc_released.py \
        --workdir runs/ssenet_voc_released --config.data.root=DIR/VOCdevkit

Nothing is trained. ``resnet38_SSENet.pth`` and ``resnet38_aff_SSENet.pth`` are expected in the
folder that `WSSS_JAX_WEIGHTS` names, or where ``--config.maps_network.weights`` and
``--config.walk_network.weights`` say. The maps are made as in `ssenet_voc`. In the walk of the
authors' program, the background has a constant score. The published mIoU on train is 49.8 for the
maps and 62.1 after the walk.
"""

from typing import Any

from configs import cam_psa_voc, chains, common, ssenet_voc


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    chain: Any = cam_psa_voc.get_config()
    chain.train.method = ssenet_voc.get_config().train.method
    common.change_maps(chain, **common.SSENET_MAPS)
    chain.walk.background = 0.2
    return chains.released(
        chain,
        "ssenet_voc_released",
        maps="resnet38_SSENet.pth",
        walk="resnet38_aff_SSENet.pth",
    )
