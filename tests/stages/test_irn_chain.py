"""IRNet between CAMs and masks: its labels, training from them, and the walk on boundaries."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.stages.test_random_walk_stage import (
    CLASSES,
    KEYS,
    SIZES,
    Images,
    context,
    files,
    scores_of,
)
from tests.toys.sections import run_section
from wsss_jax.data.block_means import block_means
from wsss_jax.data.formats.cam_files import write_cams
from wsss_jax.data.formats.walk_files import read_walk
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.host.cam_crf import CamTask
from wsss_jax.host.dense_crf import IRN, dense_crf, label_unary
from wsss_jax.host.hard_labels import HardLabels, label_cams, sure_labels
from wsss_jax.host.interpolation import interpolation_matrix
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import init_variables, variable_shapes
from wsss_jax.ops.pair_affinity import boundary_affinity
from wsss_jax.ops.random_walk import random_walk
from wsss_jax.stages.irn_labels import IrnLabels
from wsss_jax.stages.random_walk import RandomWalk
from wsss_jax.stages.train import Train
from wsss_jax.weights.npz import load_weights, save_weights

METHOD = dict(name="irnet", backbone=dict(name="tiny", width=8))
WALK = dict(
    split="train", network="boundary", beta=10, steps=16, max_buckets=1, batch_pixels=1 << 15
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    params, variables = init_variables(Method.from_config(METHOD, num_classes=4), 0)
    save_weights(folder / "train" / "weights.npz", params, variables)
    write_json(folder / "train" / "config.json", {"method": METHOD})
    for index, name in enumerate(Images.ids):
        path = folder / "cam" / "cams" / f"{name}.npz"
        write_cams(path, np.array(KEYS[index], int), scores_of(index))
    return {"checkpoint": folder / "train", "cams": folder / "cam"}


def labels_by_hand(index: int, how: HardLabels) -> np.ndarray:
    """As the published program puts it: keys, then the two results, then their combination."""
    image = decode_image(Images()[index]["image"], "image")
    keys = np.array([0, *(key + 1 for key in KEYS[index])])
    results = []
    for threshold in (how.foreground, how.background):
        scores = np.stack([np.full(SIZES[index], threshold, np.float32), *scores_of(index)])
        unary = label_unary(scores.argmax(0), len(keys), how.confidence)
        q = dense_crf(image, unary, gaussian=IRN.gaussian, bilateral=IRN.bilateral, iterations=10)
        results.append(keys[q.argmax(-1)])
    sure, weak = results
    label = sure.copy()
    label[sure == 0] = 255
    label[sure + weak == 0] = 0
    return label


def test_labels_are_the_published_combination(inputs: dict[str, Path], tmp_path: Path):
    how, index = HardLabels(foreground=0.8, background=0.5), 1
    target = tmp_path / "label.png"
    path = inputs["cams"] / "cams" / f"image_{index}.npz"
    label_cams(how, CamTask("image_1", Images()[index]["image"], path, 4), (target,))
    found = decode_mask(target.read_bytes(), "label", 4)
    np.testing.assert_array_equal(found, labels_by_hand(index, how))
    assert {0, 2, 255} == {*np.unique(found).tolist()}


def test_an_image_without_classes_is_background():
    image = np.zeros((5, 6, 3), np.uint8)
    nothing = np.zeros((0, 5, 6), np.float32)
    assert not sure_labels(image, "a", np.zeros(0, int), nothing, HardLabels()).any()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"background": 0.4}, "expected thresholds 0 <= background <= foreground"),
        ({"foreground": 1.5}, "foreground 1.5"),
        ({"confidence": 1.0}, "confidence inside 0…1, found 1"),
        ({"iterations": -1}, "iterations of 0 or more"),
    ],
)
def test_wrong_settings_are_refused(setting: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        config = ConfigDict({"split": "train", **setting})
        run_section(IrnLabels, context(tmp_path), config, {"cams": tmp_path})


def test_labels_are_made_once_and_learnt_from(inputs: dict[str, Path], tmp_path: Path):
    made = tmp_path / "labels"
    settings = ConfigDict(dict(split="train", workers=1, iterations=2))
    metrics = run_section(IrnLabels, context(made), settings, inputs)
    assert (metrics["images"], metrics["labeled"], metrics["foreground"]) == (6, 6, 0.3)
    assert [*files(made)] == [f"masks/{name}.png" for name in Images.ids]
    (made / "masks" / "image_3.png").unlink()
    before = files(made)
    assert run_section(IrnLabels, context(made), settings, inputs)["labeled"] == 1
    assert before.items() <= files(made).items() and len(files(made)) == 6

    augment = dict(crop=48, long_side=(), flip=0.5, brightness=0.0, contrast=0.0, saturation=0.0)
    section = dict(
        type="train",
        split="train",
        needs=dict(masks="labels"),
        batch_size=2,
        steps=1,
        method=dict(METHOD, radius=3),
        optimizer=dict(lr=0.01, momentum=0.0, weight_decay=0.0, schedule="constant"),
        augment=dict(augment, hue=0.0),
        num_threads=1,
    )
    metrics = run_section(Train, context(tmp_path / "train"), ConfigDict(section), {"masks": made})
    assert 0 < metrics["trainable_parameters"] < metrics["parameters"]


def one_by_one(inputs: dict[str, Path], index: int) -> np.ndarray:
    """Scores [labels, H, W] of one image at its own size, as the published program has them."""
    method = Method.from_config(METHOD, num_classes=4)
    params, variables = load_weights(inputs["checkpoint"] / "weights.npz", *variable_shapes(method))
    image = decode_image(Images()[index]["image"], "image")[None]
    valid = np.ones(image.shape[:3], bool)
    maps: Any = jax.jit(method.predict)({"params": params, **variables}, image, valid)
    affinity, offsets = boundary_affinity(maps["boundary"][..., 0])
    scores = block_means(scores_of(index), 4).transpose(1, 2, 0)[None] * (1 - maps["boundary"])
    walked = random_walk(scores, affinity, offsets=offsets, beta=10.0, steps=16)[0]
    planes = np.asarray(walked).transpose(2, 0, 1)
    rows, columns = (
        interpolation_matrix(low, 4 * low, align_corners=False) for low in planes.shape[1:]
    )
    full = (rows @ planes @ columns.T)[:, : SIZES[index][0], : SIZES[index][1]]
    return np.concatenate([np.full((1, *full.shape[1:]), 0.25), full / full.max()])


def test_a_walk_on_boundaries(inputs: dict[str, Path], tmp_path: Path):
    metrics = run_section(RandomWalk, context(tmp_path), ConfigDict(WALK), inputs)
    assert metrics["threshold"] == 0.25 and "alpha" not in metrics and metrics["walked"] == 6
    walk = read_walk(tmp_path / "walk" / "image_1.npz", len(CLASSES))
    assert walk.stride == 4 and walk.scores.shape == (2, 25, 33)
    expected = one_by_one(inputs, 1)
    np.testing.assert_allclose(walk.upsampled(), expected, atol=2e-3)
    mask = decode_mask((tmp_path / "masks" / "image_1.png").read_bytes(), "mask", 4)
    clear = np.abs(expected[1] - 0.25) > 5e-3
    np.testing.assert_array_equal(mask[clear], 2 * (expected[1] > 0.25)[clear])
    assert clear.mean() > 0.9
    empty = decode_mask((tmp_path / "masks" / "image_2.png").read_bytes(), "mask", 4)
    assert empty.shape == (40, 40) and not empty.any()


def test_wrong_walks_are_refused(inputs: dict[str, Path], tmp_path: Path):
    with pytest.raises(
        UserError, match="network to be one of 'affinity', 'boundary', found 'irnet'"
    ):
        run_section(RandomWalk, context(tmp_path), ConfigDict(dict(WALK, network="irnet")), inputs)
    with pytest.raises(UserError, match=r"boundary, displacement, which .* found 'affinity'"):
        run_section(
            RandomWalk, context(tmp_path), ConfigDict(dict(WALK, network="affinity")), inputs
        )
