"""A plain CAM with IRNet's whole chain on the built-in data, with tiny networks from scratch.

    python -m wsss_jax.main --config configs/cam_irn_shapes.py --workdir runs/cam_irn_shapes

Two CPU cores suffice, and nothing is downloaded. The thresholds, the walk and its final CRF were
chosen on train.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import cam_psa_shapes, chains, common


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    psa: Any = cam_psa_shapes.get_config()
    c: Any = ConfigDict({name: psa[name] for name in ("name", "seed", "data", "train")})
    c.name = "cam_irn_shapes"
    chains.with_boundaries(
        c,
        labels=dict(foreground=0.5, background=0.2, bilateral=psa.crf.bilateral),
        irnet=common.training(
            split=c.train.split,
            batch_size=16,
            epochs=3,
            augment=psa.train_affinity.augment,
            method=dict(name="irnet", backbone=psa.train_affinity.method.backbone, radius=5),
            optimizer=psa.train.optimizer,
        ),
        segmentation=ConfigDict(psa.train_segmentation.to_dict()),
        walk=dict(
            beta=20.0,
            steps=8,
            threshold=0.3,
            crf=True,
            bilateral=psa.walk.bilateral,
            iterations=psa.walk.iterations,
        ),
        test=psa.masks_val.to_dict(),
        maps=dict(scales=psa.cam.scales),
    )
    # There are no ImageNet weights, so the other networks start from the classifier's backbone.
    c.train_irnet.needs.backbone = "train"
    c.train_segmentation.needs.backbone = "train"
    return c
