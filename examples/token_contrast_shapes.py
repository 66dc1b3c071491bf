"""Token contrast on the built-in data, from labels to masks in one training stage.

    python -m wsss_jax.main --config examples/token_contrast_shapes.py --workdir runs/token_contrast

Two CPU cores suffice; nothing is downloaded. The maps of the classifier and the masks of the
decoder, both of the EMA teacher, are scored on train and val.
"""

from typing import Any

from ml_collections import ConfigDict

from wsss_jax.data.augment import Augment
from wsss_jax.data.sets.base import DataSettings
from wsss_jax.methods.base import Method
from wsss_jax.stages.base import Stage
from wsss_jax.training.evaluators.base import Evaluator
from wsss_jax.training.optimizer import OptimizerSettings

STEPS_PER_EPOCH = 800 // 16  # images, a batch


def get_config() -> Any:
    """The recipe; every value can be replaced on the command line."""
    c: Any = ConfigDict()
    c.name = "token_contrast_shapes"
    c.seed = 0
    c.data = DataSettings.defaults("shapes")
    c.train = Stage.defaults(
        "train",
        split="train",
        batch_size=16,
        epochs=18,
        augment=Augment.defaults(crop=96, long_side=(96, 128), hue=0.0),
        method=_method(),
        # From scratch, Adam finds the heads where SGD does not begin to.
        optimizer=OptimizerSettings.defaults(
            name="adamw", lr=0.001, weight_decay=0.01, warmup_steps=50
        ),
        evaluators=dict(val=Evaluator.defaults("miou", every=300, images=100)),
    )
    names = ["train"]
    thresholds: Any = {
        "train": dict(threshold="oracle", needs={}),
        "val": dict(threshold="from:train", needs=dict(train="eval_cam_train")),
    }
    for split, chosen in thresholds.items():
        views: Any = dict(needs=dict(checkpoint="train"), split=split, scales=(0.75, 1.0))
        c[f"cam_{split}"] = Stage.defaults("infer_cam", **views)
        c[f"masks_{split}"] = Stage.defaults("predict", **views)
        c[f"eval_cam_{split}"] = Stage.defaults(
            "evaluate",
            split=split,
            threshold=chosen["threshold"],
            needs=chosen["needs"] | dict(pred=f"cam_{split}"),
        )
        c[f"eval_masks_{split}"] = Stage.defaults(
            "evaluate", split=split, needs=dict(pred=f"masks_{split}")
        )
        names += [f"{kind}_{split}" for kind in ("cam", "eval_cam", "masks", "eval_masks")]
    c.report = Stage.defaults("report", needs={name: name for name in names})
    c.stages = (*names, "report")
    return c


def _method() -> ConfigDict:
    return Method.defaults(
        "examples.token_contrast",
        backbone=dict(name="examples.token_contrast", width=64, depth=4, heads=2),
        features=64,
        embedding=64,
        head_lr=1.0,
        rank_decay=0.93,
        contrast_start=6 * STEPS_PER_EPOCH,
        mask_start=8 * STEPS_PER_EPOCH,
        mask_weight=1.0,
        label_scales=(1.0,),
        dilations=(1, 2, 4),
        strong=dict(
            brightness=0.3,
            contrast=0.3,
            saturation=0.3,
            hue=0.0,
            grayscale_p=0.0,
            blur_p=0.2,
            blur_sigma=(0.1, 1.0),
        ),
        local_crops=dict(count=4, size=32),
    )
