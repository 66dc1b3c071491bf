"""Recipes are the published ones, and differ from each other in what they say they do."""

from typing import Any

import pytest

from wsss_jax.data.augment import Augment
from wsss_jax.files import flatten
from wsss_jax.methods.base import Method
from wsss_jax.pipeline.config import load_config
from wsss_jax.stages.released import Released
from wsss_jax.training.optimizer import OptimizerSettings


def _load(name: str) -> Any:
    return load_config(name)


def test_seam_voc_is_the_published_recipe():
    train = _load("seam_voc").train
    assert (train.split, train.batch_size, train.epochs) == ("train_aug", 8, 8)
    augment = train.augment.to_dict()
    assert augment == dict(
        crop=448,
        long_side=(448, 768),
        scale=(),
        flip=0.5,
        brightness=0.3,
        contrast=0.3,
        saturation=0.3,
        hue=0.1,
        jitter_p=1.0,
        grayscale_p=0.0,
        hsv=0,
        random_position=True,
    )
    # The momentum is the published programs' own: they pass the weight decay for it.
    published = OptimizerSettings.defaults(lr=0.01, momentum=5e-4, weight_decay=5e-4, power=0.9)
    assert train.optimizer.to_dict() == published.to_dict()
    assert (train.method.small_scale, train.method.topk) == (0.3, 0.2)
    assert train.method.backbone.name == "resnet38"
    assert _load("seam_voc").cam.scales == (0.5, 1.0, 1.5, 2.0)


def test_ssenet_voc_is_the_published_recipe():
    train, seam = _load("ssenet_voc").train, _load("seam_voc").train
    assert (train.method.small_scale, train.method.ser_weight) == (0.3, 1.0)
    assert train.method.backbone.name == "resnet38"
    assert (train.batch_size, train.epochs, train.optimizer.lr) == (16, 15, 0.01)
    assert train.augment == seam.augment
    assert {k for k in train if train[k] != _load("cam_voc").train[k]} == {"method"}


def test_pss_voc_is_the_published_recipe():
    c = _load("pss_voc")
    for stage, mam_weight in ((c.train_rcm, 0.0), (c.train, 1.0)):
        method = stage.method
        augment = stage.augment
        assert (stage.batch_size, augment.crop, augment.long_side) == (8, 384, (256, 512))
        assert (augment.jitter_p, augment.grayscale_p) == (0.8, 0.1)
        assert (method.rcm_weight, method.mam_weight, method.decay) == (1.0, mam_weight, 0.996)
        assert (method.threshold, method.temperature, method.features) == (0.3, 0.5, 256)
        assert method.mask_scales == (0.5, 1.0, 1.5, 2.0) and method.map_scales == (0.5, 1.0, 2.0)
        assert (method.prototypes, method.memory, method.attention) == ("leave_one_out", 0, True)
        assert (method.head_lr, method.region_stride) == (1.0, 1)
        assert (stage.optimizer.lr, stage.optimizer.weight_decay) == (0.01, 5e-4)
    assert c.train.needs.to_dict() == {"init": "train_rcm"}


@pytest.mark.parametrize("data", ["voc", "voc_light", "shapes"])
def test_one_stage_differs_from_two_in_the_start_of_the_attention_alone(data: str):
    two, one = _load(f"pss_{data}"), _load(f"pss_one_stage_{data}")
    first, second, alone = (c.to_dict() for c in (two.train_rcm, two.train, one.train))
    assert "train_rcm" not in one and not alone["needs"]
    epochs = {"voc": 8}.get(data, first["epochs"] + second["epochs"])
    assert alone.pop("epochs") == epochs
    # MAM is off for as long as the first stage lasts, with ResNet38 for three epochs.
    images = 800 if data == "shapes" else 10_582
    before = 3 if data == "voc" else first["epochs"]
    assert alone["method"].pop("mam_start") == before * (images // alone["batch_size"])
    for section in (first, second):
        del section["epochs"], section["method"]["mam_start"]
    assert second.pop("needs") == {"init": "train_rcm"} and not first["needs"]
    del first["needs"], alone["needs"]
    first["method"]["mam_weight"] = 1.0
    assert first == alone
    assert {**second, "init_weights": alone["init_weights"]} == alone


def test_ecsnet_voc_is_seam_in_all_that_its_paper_leaves_to_it():
    ecsnet, seam = _load("ecsnet_voc").train, _load("seam_voc").train
    assert {k for k in seam if ecsnet[k] != seam[k]} == {"method"}
    assert ecsnet.method.backbone.name == "resnet38"
    # One erasure of the image, classifiers of several dilations, reliable pixels alone.
    assert ecsnet.method.erase_threshold < 1 and len(ecsnet.method.dilations) > 1
    assert ecsnet.method.suppression != "none"


def test_cam_voc_differs_from_seam_voc_in_the_method_and_the_schedule_alone():
    cam, seam = _load("cam_voc"), _load("seam_voc")

    def difference(stage: str) -> set[str]:
        one, other = dict(flatten(cam[stage])), dict(flatten(seam[stage]))
        return {k for k in one.keys() | other.keys() if one.get(k) != other.get(k)}

    trained = {k for k in difference("train") if not k.startswith("method.")}
    assert trained == {"batch_size", "epochs"}
    assert (cam.train.batch_size, cam.train.epochs) == (16, 15)
    assert difference("cam_val") == {"normalize", "upsample"}


@pytest.mark.parametrize("data", ["shapes", "voc_light", "voc"])
def test_lpcam_takes_the_training_of_its_cam_and_its_authors_settings(data: str):
    c = _load(f"lpcam_{data}")
    plain = _load("cam_irn_voc" if data == "voc" else f"cam_{data}")
    assert c.train == plain.train and c.data == plain.data
    added = ("plain_cam", "class_features", "prototypes")
    assert c.stages == ("train", *added, *plain.stages[1:])
    made = [name for name in plain.stages if plain[name].type == "infer_cam"]
    assert c.plain_cam == plain[made[0]]
    assert {c[name].split for name in (*added, made[0])} == {plain[made[0]].split}
    assert (c.class_features.threshold, c.prototypes.tolerance) == (0.1, 5.0)
    assert (c.prototypes.prototype, c.prototypes.context) == (0.9, (0.05, 0.9))
    assert c.prototypes.method.clusters == 12
    assert c.prototypes.method.backbone == c.train.method.backbone
    for name in made:
        assert c[name].needs.checkpoint == "prototypes"
        assert (c[name].flip, c[name].relu_each, c[name].normalize) == (False, False, "max")
        assert c[name].scales == ((0.75, 1.0) if data == "shapes" else (1.0, 0.5, 1.5, 2.0))
    if data == "voc":
        assert (c.irn_labels.foreground, c.irn_labels.background) == (0.45, 0.25)
        assert c.walk.threshold == 0.35 and c.eval_cam_train.compare.published == 0.3
        same = set(plain.stages) - {*made, "irn_labels", "walk", "eval_cam_train", "report"}
        assert all(c[name] == plain[name] for name in same)


def test_seam_voc_lite0_differs_from_seam_voc_light_in_the_backbone_and_its_schedule():
    lite, light = (dict(flatten(_load(f"seam_voc_{name}"))) for name in ("lite0", "light"))
    changed = {k for k in lite.keys() | light.keys() if lite.get(k) != light.get(k)}
    changed = {k for k in changed if ".method.backbone." not in k} - {"name", "init_weights"}
    trainings = "train", "train_affinity", "train_segmentation"
    settings = "epochs", "init_weights", "optimizer.lr", "method.head_lr"
    assert changed == {f"{stage}.{setting}" for stage in trainings for setting in settings}
    for stage in trainings:
        assert lite[f"{stage}.method.backbone.name"] == "efficientnet_lite"
        # New layers keep their rate, and a step takes about a third longer.
        rates = [c[f"{stage}.optimizer.lr"] * c[f"{stage}.method.head_lr"] for c in (lite, light)]
        assert rates[0] == pytest.approx(rates[1])
        assert lite[f"{stage}.epochs"] / light[f"{stage}.epochs"] == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize("name", ["seam_voc", "cam_psa_voc"])
def test_a_whole_chain_is_the_published_one(name: str):
    c = _load(name)
    assert c.crf.gaussian == (3, 3) and c.crf.bilateral == (80, 13, 10) and c.crf.iterations == 10
    assert c.crf.alphas == c.train_affinity.affinity_alphas
    assert c.crf.alphas == ((4.0, 24.0) if name == "seam_voc" else (4.0, 32.0))
    assert (c.walk.beta, c.walk.steps) == (8.0, 64 if name == "seam_voc" else 256)
    affinity, segmentation = c.train_affinity, c.train_segmentation
    assert (affinity.batch_size, affinity.epochs, affinity.augment.long_side) == (8, 8, ())
    assert (segmentation.batch_size, segmentation.steps) == (10, 20_000)
    assert segmentation.augment.scale == (0.5, 1.5)
    assert segmentation.method.backbone.bn_momentum == 3e-4
    assert c.masks_val.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75) and c.masks_val.flip
    # One file of weights for all three networks, whichever is named.
    c.train_affinity.init_weights = "weights.npz"
    assert c.init_weights == c.train.init_weights == segmentation.init_weights == "weights.npz"


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("seam_voc", "cam threshold crf train_affinity walk train_segmentation"),
        ("cam_irn_voc_light", "cam threshold irn_labels train_irnet walk train_segmentation"),
        ("seam_own_light", "cam pseudo_labels crf train_affinity walk masks_train"),
        ("pss_voc", "train_rcm"),
        ("seg_voc_light", "train_on_masks"),
    ],
)
def test_images_to_train_on_are_named_once(name: str, others: str):
    c = _load(name)
    scored = {n: c[n].split for n in c.stages if c[n].type == "evaluate"}
    c.train.split = "mine"
    assert {c[other].split for other in others.split()} == {"mine"}
    assert {n: c[n].split for n in scored} == scored


def test_irnets_chain_is_the_published_one():
    c = _load("cam_irn_voc")
    rate = OptimizerSettings.defaults(lr=0.1, momentum=1e-4, weight_decay=1e-4, power=0.9)
    assert c.train.optimizer.to_dict() == c.train_irnet.optimizer.to_dict() == rate.to_dict()
    assert (c.train.batch_size, c.train.epochs, c.train.augment.crop) == (16, 5, 512)
    assert c.train.augment.long_side == (320, 640)
    assert (c.train.method.backbone.frozen_layers, c.train.method.dropout) == (2, 0.0)
    irnet = c.train_irnet
    assert (irnet.batch_size, irnet.epochs, irnet.augment.crop) == (32, 3, 512)
    assert irnet.augment.scale == (0.5, 1.5) and irnet.method.canvas == irnet.augment.crop
    assert (c.irn_labels.foreground, c.irn_labels.background) == (0.3, 0.05)
    assert c.irn_labels.bilateral == (50, 5, 10) and c.irn_labels.confidence == 0.7
    assert (c.walk.network, c.walk.beta, c.walk.steps) == ("boundary", 10.0, 256)
    assert c.walk.threshold == 0.25
    needs = c.train_irnet.needs.to_dict(), c.train_segmentation.needs.to_dict()
    assert needs == ({"masks": "irn_labels"}, {"masks": "walk"})
    for stage in ("train_irnet", "train_segmentation"):
        Augment(**c[stage].augment)
        assert Method.from_config(c[stage].method.to_dict(), num_classes=20).param_rules()
        c[stage].init_weights = f"{stage}.npz"
        assert c.train.init_weights == f"{stage}.npz"


def test_puzzlecam_voc_is_the_published_recipe():
    c, irn = _load("puzzlecam_voc"), _load("cam_irn_voc")
    train = c.train
    assert (train.split, train.batch_size, train.epochs) == ("train_aug", 32, 15)
    augment = train.augment
    assert (augment.crop, augment.long_side, augment.flip) == (512, (320, 640), 0.5)
    assert (augment.brightness, augment.contrast, augment.saturation, augment.hue) == (0, 0, 0, 0)
    # The momentum is the published program's own: it passes the weight decay for it.
    published = OptimizerSettings.defaults(
        lr=0.1, momentum=1e-4, nesterov=True, weight_decay=1e-4, power=0.9
    )
    assert train.optimizer.to_dict() == published.to_dict()
    method, backbone = train.method, train.method.backbone
    assert (method.name, method.alpha, method.ramp, method.head_lr) == ("puzzle_cam", 4, 0.5, 10)
    assert (method.distance, method.classes, method.normalized_maps) == ("l1", "masked", False)
    assert (method.dropout, backbone.output_stride, backbone.dilated) == (0, 16, False)
    assert (backbone.frozen_layers, backbone.bn_momentum) == (-1, 0.1)
    assert (c.cam.scales, c.cam.relu_each, c.cam.normalize) == ((0.5, 1.0, 1.5, 2.0), True, "max")
    assert (c.irn_labels.foreground, c.irn_labels.background) == (0.4, 0.1)
    assert (c.walk.beta, c.walk.steps, c.walk.threshold) == (10.0, 256, 0.35)
    # The rest is IRNet's chain.
    ours, theirs = dict(flatten(c)), dict(flatten(irn))
    changed = {key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]}
    assert {key for key in changed if not key.startswith("train.")} == {
        *("name", "walk.threshold", "irn_labels.foreground", "irn_labels.background")
    }


@pytest.mark.parametrize("data", ["shapes", "voc_light"])
def test_puzzle_cam_differs_from_the_baseline_in_its_method_and_maps_alone(data: str):
    puzzle, cam = _load(f"puzzlecam_{data}"), _load(f"cam_{data}")
    assert {k for k in cam.train if puzzle.train[k] != cam.train[k]} == {"method"}
    assert puzzle.train.method.backbone == cam.train.method.backbone
    assert {k for k in cam.cam_train if puzzle.cam_train[k] != cam.cam_train[k]} == {"relu_each"}
    assert puzzle.stages == cam.stages


def test_recam_voc_is_the_published_recipe():
    c = _load("recam_voc")
    rate = OptimizerSettings.defaults(lr=0.1, momentum=1e-4, weight_decay=1e-4, power=0.9)
    assert c.train_cam.optimizer.to_dict() == rate.to_dict()
    assert c.train.optimizer.to_dict() == {**rate.to_dict(), "lr": 5e-5}
    method = c.train.method
    assert (method.head_lr, method.softmax_weight, method.dropout) == (10.0, 1.0, 0.0)
    assert (c.train_cam.epochs, c.train.epochs) == (5, 4)
    for stage in (c.train_cam, c.train):
        assert (stage.batch_size, stage.augment.crop, stage.augment.long_side) == (
            *(16, 512, (320, 640)),
        )
        backbone = stage.method.backbone
        assert (backbone.name, backbone.depth, backbone.frozen_layers) == ("resnet", 50, 0)
    assert (c.irn_labels.foreground, c.irn_labels.background) == (0.35, 0.1)
    assert (c.walk.beta, c.walk.steps, c.walk.threshold) == (10.0, 256, 0.28)
    assert c.cam.scales == (0.5, 1.0, 1.5, 2.0) and c.cam.relu_each and c.cam_val.relu_each
    irn = _load("cam_irn_voc")
    assert c.stages == ("train_cam", *irn.stages)
    changed = {stage for stage in irn.stages if c[stage] != irn[stage]}
    assert changed == {"train", "irn_labels", "walk", "report"}


@pytest.mark.parametrize(
    ("name", "cam"),
    [("recam_voc", ""), ("recam_voc_light", "cam_voc_light"), ("recam_shapes", "cam_shapes")],
)
def test_recam_starts_from_the_training_of_a_cam(name: str, cam: str):
    c = _load(name)
    assert c.train.needs.to_dict() == {"init": "train_cam"} and c.train.init_weights == ""
    if cam:
        assert c.train_cam == _load(cam).train
    c.init_weights = "weights.npz"
    assert (c.train_cam.init_weights, c.train.init_weights) == ("weights.npz", "")
    c.train.split = "mine"
    assert c.train_cam.split == "mine"


@pytest.mark.parametrize(
    ("name", "chain", "walk"),
    [
        ("seam_voc_released", "seam_voc", "train_affinity"),
        ("ssenet_voc_released", "cam_psa_voc", "train_affinity"),
        ("irn_voc_released", "cam_irn_voc", "train_irnet"),
    ],
)
def test_released_networks_are_used_as_trained_ones_are(name: str, chain: str, walk: str):
    c, whole = _load(name), _load(chain)
    assert c.stages == (
        *("maps_network", "cam", "eval_cam", "walk_network", "walk", "eval_walk", "report"),
    )
    expected = whole.train.method if name[:3] != "sse" else _load("ssenet_voc").train.method
    assert (c.maps_network.method, c.walk_network.method) == (expected, whole[walk].method)
    maps, walked = (
        {key for key in c[stage] if c[stage][key] != whole[stage][key]} for stage in ("cam", "walk")
    )
    own = name == "ssenet_voc_released"
    assert maps == {"needs", "split"} | ({"relu_each"} if own else set())
    assert walked == {"needs", "split"} | ({"background"} if own else set())
    assert c.walk.background == (0.2 if own else 0.0)
    assert {c[stage].split for stage in ("cam", "walk", "eval_cam", "eval_walk")} == {"train"}
    assert c.eval_cam.threshold == "oracle" and c.protocol == whole.protocol


def test_the_released_segmentation_network_is_tested_as_its_authors_do():
    c, whole = _load("seg_voc_released"), _load("seam_voc")
    network = Released.from_config(c.network, "network")
    assert network.method == Method.from_config(whole.train_segmentation.method, "method")
    assert c.masks_val.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75) and c.masks_val.flip
    assert c.masks_val.crf and c.masks_val.iterations == 1


def test_the_test_servers_recipe_only_adds_to_the_chain():
    chain, test = _load("seam_voc"), _load("seam_voc_test")
    assert test.stages == (*chain.stages[:-1], "masks_test", "submit", "report")
    for stage in chain.stages[:-1]:
        assert test[stage] == chain[stage]
    assert test.masks_test.split == test.submit.split == "test"
