"""SEAM with MobileNetV2 at small image sizes: weak supervision on a laptop.

    python -m wsss_jax.main --config configs/seam_voc_light.py --workdir runs/seam_voc_light \
        --config.data.root=DIR/VOCdevkit --config.train.init_weights=mobilenet_v2_imagenet.npz

Two CPU cores suffice. `init_weights` are ImageNet weights under torchvision's parameter names. The
second image is half as large (published: 0.3), since a crop of 224 leaves too little of it.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """The recipe; every value can be replaced on the command line."""
    c = ConfigDict()
    c.name = "seam_voc_light"
    c.seed = 0
    c.data = common.voc_data()
    augment = common.published_augmentation()
    augment.update(crop=224, long_side=(224, 384))
    c.train = common.training(
        batch_size=16,
        epochs=5,
        augment=augment,
        method=dict(
            name="seam",
            backbone=dict(name="mobilenet_v2", output_stride=16, taps=(5, 12), remat=False),
            map_stride=8,
            small_scale=0.5,
            topk=0.2,
            er_weight=1.0,
            ecr_weight=1.0,
            dtype="float32",
        ),
        # New layers learn at ten times this rate. Real momentum: the schedule is short.
        optimizer=dict(lr=0.005, momentum=0.9, weight_decay=5e-4, schedule="poly", poly_power=0.9),
    )
    common.seeds_and_scores(c, normalise="min_max", enlarge="corners")
    return c
