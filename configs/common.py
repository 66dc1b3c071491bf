"""What the recipes share."""

from ml_collections import ConfigDict


def voc_data() -> ConfigDict:
    """PASCAL VOC 2012 or a folder laid out like it; ``data.root`` is given on the command line.

    `root`: the VOCdevkit folder or its parent. `labels`: a file of image-level labels
    (cls_labels.npy, .npz or .csv); empty takes the annotations, else the masks. `masks`: a folder
    of masks, empty for the devkit's own. `data_dir`: where the prepared set goes; empty is
    ~/.cache/wsss_jax.
    """
    return ConfigDict(dict(builder="voc2012_wsss", root="", labels="", masks="", data_dir=""))


def shapes_data() -> ConfigDict:
    """The built-in data set: generated, with exact masks; `size` is a side in pixels."""
    return ConfigDict(
        dict(builder="shapes", train_images=1200, val_images=200, size=128, seed=0, data_dir="")
    )


def published_optimizer(lr: float) -> ConfigDict:
    """SGD of AffinityNet's code, which SSENet and SEAM use.

    The momentum is 5e-4, as published: those programs hand the weight decay to the optimizer as its
    momentum too, and 0.9 is the power of the learning rate's decay, not a momentum. Scores in the
    papers were reached so; a momentum of 0.9 would be ten times the step.
    """
    return ConfigDict(
        dict(lr=lr, momentum=5e-4, weight_decay=5e-4, schedule="poly", poly_power=0.9)
    )


def published_augmentation() -> ConfigDict:
    """SSENet's and SEAM's: long side, flip, colour jitter, zero-padded crop."""
    return ConfigDict(
        dict(
            crop=448,
            long_side=(448, 768),
            flip=0.5,
            brightness=0.3,
            contrast=0.3,
            saturation=0.3,
            hue=0.1,
        )
    )


def training(**changes: object) -> ConfigDict:
    """A training stage with what is seldom changed; `changes` are the recipe."""
    section = ConfigDict(
        dict(
            type="train",
            split="train_aug",
            init_weights="",
            steps=0,  # above 0: this many steps whatever the epochs say
            log_every=10,
            image_every=200,  # maps for TensorBoard; 0 for none
            checkpoint_every=200,
            keep=2,
        )
    )
    section.update(changes)
    return section


def seeds_and_scores(
    c: ConfigDict,
    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0),
    normalise: str = "max",
    enlarge: str = "direct",
    protocol: str = "strict",
) -> None:
    """Adds the stages after training: CAMs of train and val, scores, masks, report.

    How maps are finished, `normalise` and `enlarge`: as in AffinityNet's and SSENet's programs by
    default, ``min_max`` and ``corners`` as in SEAM's.

    The background threshold is the best one on train, as SSENet and SEAM choose it; val is scored
    and the masks are made with that one. A number in place of ``oracle`` or ``from:...`` fixes it.
    """
    for split in ("train", "val"):
        c[f"cam_{split}"] = ConfigDict(
            dict(
                type="infer_cam",
                needs=dict(checkpoint="train"),
                split=split,
                output="cam",
                scales=scales,
                flip=True,
                normalise=normalise,
                enlarge=enlarge,
                max_pixels=3_000_000,
                batch_pixels=1 << 19,
            )
        )
    scored = dict(type="evaluate", protocol=protocol)
    c.eval_cam_train = ConfigDict(
        dict(**scored, needs=dict(pred="cam_train"), split="train", threshold="oracle")
    )
    c.eval_cam_val = ConfigDict(
        dict(
            **scored,
            needs=dict(pred="cam_val", train="eval_cam_train"),
            split="val",
            threshold="from:train",
        )
    )
    c.pseudo_labels = ConfigDict(
        dict(
            type="pseudo_labels",
            needs=dict(cams="cam_train", train="eval_cam_train"),
            split="train",
            threshold="from:train",
            alpha=0.0,
        )
    )
    c.eval_pseudo_labels = ConfigDict(
        dict(**scored, needs=dict(pred="pseudo_labels"), split="train")
    )
    stages = (
        "train",
        "cam_train",
        "eval_cam_train",
        "cam_val",
        "eval_cam_val",
        "pseudo_labels",
        "eval_pseudo_labels",
    )
    c.report = ConfigDict(dict(type="report", needs={name: name for name in stages}))
    c.stages = (*stages, "report")
