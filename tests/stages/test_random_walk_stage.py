"""The stage: batches in padded shapes equal one image at a time; resuming; mistakes."""

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.toys.sections import run_section
from wsss_jax.data.block_means import block_means
from wsss_jax.data.formats.cam_files import CamFolder, write_cams
from wsss_jax.data.formats.walk_files import Walk, read_walk, write_walk
from wsss_jax.data.images import decode_image
from wsss_jax.data.masks import decode_mask
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.host.interpolation import interpolation_matrix
from wsss_jax.inference.network import Network
from wsss_jax.inference.random_walk import Walks, WalkSettings
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import init_variables, variable_shapes
from wsss_jax.models.tiny import Tiny
from wsss_jax.ops.path_index import pair_offsets
from wsss_jax.ops.random_walk import random_walk
from wsss_jax.ops.sharding import data_mesh
from wsss_jax.stages.base import Context
from wsss_jax.stages.random_walk import RandomWalk
from wsss_jax.weights.npz import load_weights, save_weights

CLASSES = ("cat", "dog", "cow", "hen")
# The third has no class; a 3 × 3 map; a single pixel.
SIZES = [(104, 120), (97, 131), (40, 40), (24, 20), (1, 1), (120, 97)]
KEYS = [(0, 2), (1,), (), (3,), (0,), (0, 1, 3)]
METHOD = dict(name="affinity", backbone=dict(name="tiny", width=8), dims=(4, 4, 8, 8))
SETTINGS = dict(split="train", alpha=4, beta=2, steps=16, max_buckets=2, batch_pixels=1 << 15)


class Images:
    """Noise in four colors of the given sizes."""

    classes: tuple[str, ...] = CLASSES
    digest = "images"
    sizes: list[tuple[int, int]] = SIZES
    ids = [f"image_{i}" for i in range(len(SIZES))]  # noqa: RUF012

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        coarse = np.random.default_rng(index).integers(0, 256, (4, 4, 3)).astype(np.uint8)
        image = cv2.resize(coarse, SIZES[index][::-1])
        label = np.isin(np.arange(4), KEYS[index]).astype(np.float32)
        data = cv2.imencode(".png", image)[1].tobytes()
        return Record(
            id=self.ids[index], image=data, size=SIZES[index], label=label, segmentation=None
        )


@dataclasses.dataclass(frozen=True)
class Given(Context):
    """A context that has these images for every split."""

    def source(self, split: str) -> Any:
        return Images()


def context(folder: Path, index: int = 0, count: int = 1, seed: int = 0) -> Given:
    folder.mkdir(parents=True, exist_ok=True)
    return Given(ConfigDict({"seed": seed}), folder, "walk", folder, index, count)


def scores_of(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    coarse = rng.random((len(KEYS[index]), 3, 3)).astype(np.float32)
    resized = [cv2.resize(plane, SIZES[index][::-1]) for plane in coarse]
    maps = np.stack(resized) if resized else np.zeros((0, *SIZES[index]), np.float32)
    return maps.astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    params, variables = init_variables(Method.from_config(METHOD, num_classes=4), 0)
    save_weights(folder / "train" / "weights.npz", params, variables)
    write_json(folder / "train" / "config.json", {"method": METHOD})
    for index, name in enumerate(Images.ids):
        write_cams(
            folder / "cam" / "cams" / f"{name}.npz", np.array(KEYS[index], int), scores_of(index)
        )
    return {"checkpoint": folder / "train", "cams": folder / "cam"}


@pytest.fixture(scope="module")
def done(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    metrics = run_section(RandomWalk, context(folder), ConfigDict(SETTINGS), inputs)
    assert (metrics["images"], metrics["walked"], metrics["crf"]) == (6, 6, False)
    assert (metrics["alpha"], metrics["beta"], metrics["steps"]) == (4, 2, 16)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.glob("*/*"))}


PNGS = ("masks", "confidence")


def one_by_one(inputs: dict[str, Path], index: int) -> np.ndarray:
    """Walked scores [labels, h, w] of one image at its own size, as one would write it first."""
    method = Method.from_config(METHOD, num_classes=4)
    params, variables = load_weights(inputs["checkpoint"] / "weights.npz", *variable_shapes(method))
    image = decode_image(Images()[index]["image"], "image")[None]
    valid = np.ones(image.shape[:3], bool)
    affinity = jax.jit(method.predict)({"params": params, **variables}, image, valid)["affinity"]
    maps = scores_of(index)
    scores = block_means(np.concatenate([(1 - maps.max(0, keepdims=True)) ** 4, maps]), 8)
    scores = scores.transpose(1, 2, 0)[None]
    walked = random_walk(scores, affinity, offsets=pair_offsets(), beta=2.0, steps=16)
    return np.asarray(walked)[0].transpose(2, 0, 1)


@pytest.mark.parametrize("index", [1, 4])
def test_batches_equal_single_images(index: int, inputs: dict[str, Path], done: Path):
    walk = read_walk(done / "walk" / f"image_{index}.npz", 4)
    height, width = SIZES[index]
    assert walk.size == walk.walked == (height, width) and walk.stride == 8
    np.testing.assert_array_equal(walk.keys, KEYS[index])
    expected = one_by_one(inputs, index)
    assert walk.scores.dtype == np.float16
    np.testing.assert_allclose(walk.scores, expected, rtol=1e-3, atol=1e-4)
    rows, columns = (
        interpolation_matrix(low, 8 * low, align_corners=False) for low in expected.shape[1:]
    )
    full = (rows @ walk.scores.astype(np.float32) @ columns.T)[:, :height, :width]
    np.testing.assert_allclose(walk.upsampled(), full, atol=1e-5)
    mask = decode_mask((done / "masks" / f"image_{index}.png").read_bytes(), "mask", 4)
    best = np.sort(full, 0)
    clear = best[-1] - best[-2] > 1e-5
    winner = np.array([0, *(k + 1 for k in KEYS[index])])[full.argmax(0)]
    assert mask.shape == (height, width) and clear.mean() > 0.9
    np.testing.assert_array_equal(mask[clear], winner[clear])
    sure = decode_mask((done / "confidence" / f"image_{index}.png").read_bytes(), "sure", None)
    assert np.abs(sure - 255 * best[-1] / full.sum(0)).max() < 0.51


def test_a_mask_without_its_confidence_is_made_again(
    inputs: dict[str, Path], done: Path, tmp_path: Path
):
    whole = files(done)
    for name, content in whole.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "confidence/image_3.png").unlink()
    assert run_section(RandomWalk, context(tmp_path), ConfigDict(SETTINGS), inputs)["walked"] == 1
    assert files(tmp_path) == whole


def test_the_background_can_follow_a_threshold(inputs: dict[str, Path], done: Path, tmp_path: Path):
    """(1 − 0.27550804)^4 = 0.27550804: with that threshold the walks are those of alpha 4."""
    needs = {**inputs, "chosen": tmp_path / "chosen"}

    def walk(threshold: float) -> dict[str, Any]:
        found = {"best_threshold": threshold, "threshold_choice": "contrast"}
        write_json(tmp_path / "chosen/metrics.json", found)
        settings = dict(SETTINGS, alpha="from:chosen")
        return run_section(RandomWalk, context(tmp_path / "walks"), ConfigDict(settings), needs)

    assert walk(0.27550804)["alpha"] == pytest.approx(4, abs=1e-6)
    for name in Images.ids:
        ours, expected = (read_walk(f / "walk" / f"{name}.npz") for f in (tmp_path / "walks", done))
        np.testing.assert_allclose(ours.scores, expected.scores, atol=1e-3)
    for useless in (0.0, 1.0):
        with pytest.raises(UserError, match=r"expected a threshold between 0 and 1 in .*chosen"):
            walk(useless)


def test_the_walk_goes_somewhere(inputs: dict[str, Path], done: Path):
    maps = scores_of(0)
    before = block_means(np.concatenate([(1 - maps.max(0, keepdims=True)) ** 4, maps]), 8)
    after = read_walk(done / "walk" / "image_0.npz").scores
    assert np.abs(before - after)[:, :9, 4:-4].max() > 0.1


def test_a_constant_background_stays_constant(inputs: dict[str, Path], done: Path, tmp_path: Path):
    """Scores walk one by one, so those of the classes are those with any other background."""
    settings = ConfigDict(dict(SETTINGS, background=0.2))
    metrics = run_section(RandomWalk, context(tmp_path), settings, inputs)
    assert metrics["background"] == 0.2 and "alpha" not in metrics
    for index, name in enumerate(Images.ids):
        ours, other = (read_walk(f / "walk" / f"{name}.npz") for f in (tmp_path, done))
        np.testing.assert_allclose(ours.scores[0], 0.2, atol=1e-3)
        np.testing.assert_allclose(ours.scores[1:], other.scores[1:], atol=2e-3)
        mask = decode_mask((tmp_path / "masks" / f"{name}.png").read_bytes(), name, 4)
        np.testing.assert_array_equal(mask > 0, ours.upsampled().argmax(0) > 0)
        assert index != 0 or 0 < (mask == 0).mean() < 1
    for wrong in (dict(background=1.0), dict(background=0.2, network="boundary")):
        with pytest.raises(UserError, match="expected background from 0 to below 1"):
            run_section(RandomWalk, context(tmp_path), ConfigDict(dict(SETTINGS, **wrong)), inputs)


def test_an_image_without_classes_is_background(done: Path):
    mask = decode_mask((done / "masks" / "image_2.png").read_bytes(), "mask", 4)
    assert mask.shape == (40, 40) and not mask.any()
    walk = read_walk(done / "walk" / "image_2.npz")
    assert walk.scores.shape == (1, 5, 5) and len(walk.keys) == 0 and (walk.scores == 1).all()


def test_finished_images_are_kept_and_results_do_not_depend_on_them(
    inputs: dict[str, Path], done: Path, tmp_path: Path
):
    whole = files(done)
    assert len(whole) == 18
    for name in ("walk/image_0.npz", "walk/image_3.npz", *(f"{f}/image_3.png" for f in PNGS)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(whole[name])
    stamp = (tmp_path / "masks/image_3.png").stat().st_mtime_ns
    metrics = run_section(RandomWalk, context(tmp_path), ConfigDict(SETTINGS), inputs)
    assert metrics["walked"] == 5 and files(tmp_path) == whole
    assert (tmp_path / "masks/image_3.png").stat().st_mtime_ns == stamp


def test_processes_share_the_images(inputs: dict[str, Path], done: Path, tmp_path: Path):
    run_section(RandomWalk, context(tmp_path, 1, 2), ConfigDict(SETTINGS), inputs)
    assert [*files(tmp_path)] == [n for n in files(done) if n.split(".")[0][-1] in "135"]
    for name in Images.ids[1::2]:
        ours, expected = (read_walk(f / "walk" / f"{name}.npz") for f in (tmp_path, done))
        np.testing.assert_allclose(ours.scores, expected.scores, atol=2e-3)


def test_a_huge_image_is_walked_on_smaller(inputs: dict[str, Path]):
    cams = CamFolder(inputs["cams"] / "cams", ["image_0"])
    network = Network(lambda images, valid: jnp.asarray(images), 8, Tiny(), data_mesh())
    walks = Walks(Images(), cams, network, WalkSettings(max_pixels=5000), alpha=4.0)
    ready = walks.prepare(0)
    assert (ready.size, ready.walked, ready.scores.shape) == ((104, 120), (66, 76), (3, 9, 10))
    full = Walk(ready.keys, ready.scores, ready.size, ready.walked, 8).upsampled()
    assert full.shape == (3, 104, 120)
    np.testing.assert_allclose(full[1:].mean((1, 2)), scores_of(0).mean((1, 2)), atol=0.01)


@pytest.mark.slow
def test_final_crf(inputs: dict[str, Path], done: Path, tmp_path: Path):
    settings = ConfigDict(dict(SETTINGS, crf=True, iterations=2, workers=1))
    assert run_section(RandomWalk, context(tmp_path), settings, inputs)["crf"]
    ours, plain = files(tmp_path), files(done)
    for name in (n for n in plain if n.startswith("walk")):
        assert ours[name] == plain[name]
    changed = [n for n in plain if n.startswith("masks") and ours[n] != plain[n]]
    assert "masks/image_0.png" in changed and "masks/image_2.png" not in changed
    device = tmp_path / "device"
    on_device = ConfigDict(dict(settings, crf_device="device"))
    metrics = run_section(RandomWalk, context(device), on_device, inputs)
    assert metrics["crf_device"] == "device" and files(device) == ours
    narrow = ConfigDict(dict(settings, bilateral=(10, 5, 4)))
    run_section(RandomWalk, context(tmp_path / "narrow"), narrow, inputs)
    assert files(tmp_path / "narrow")["masks/image_0.png"] != ours["masks/image_0.png"]


def test_pooling_counts_the_image_alone():
    scores = np.random.default_rng(0).random((2, 11, 8)).astype(np.float32)
    means = block_means(scores, 4)
    assert means.shape == (2, 3, 2)
    np.testing.assert_allclose(means[1, 0, 1], scores[1, :4, 4:].mean(), rtol=1e-6)
    np.testing.assert_allclose(means[0, 2, 0], scores[0, 8:, :4].mean(), rtol=1e-6)


def test_mistakes_are_the_users(inputs: dict[str, Path], tmp_path: Path):
    def refused(words: str, needs: dict[str, Path], **changes: Any) -> None:
        with pytest.raises(UserError, match=words):
            run_section(
                RandomWalk, context(tmp_path / "run"), ConfigDict(dict(SETTINGS, **changes)), needs
            )

    refused("alpha above 0, found 0", inputs, alpha=0)
    refused("beta above 0, found -1", inputs, beta=-1)
    refused("steps from 0 to 65536, found -2", inputs, steps=-2)
    refused("expected CRF widths above 0", inputs, crf=True, bilateral=(0, 13, 10))
    cams = tmp_path / "cam" / "cams"
    cams.mkdir(parents=True)
    needs = {**inputs, "cams": tmp_path / "cam"}
    refused("expected a CAM file for each of 6 ids .* found none for 6: image_0", needs)
    for index, name in enumerate(Images.ids):
        write_cams(cams / f"{name}.npz", np.array(KEYS[index], int), scores_of(index))
    write_cams(cams / "image_1.npz", np.array([1]), np.zeros((1, 97, 130)))
    refused("image_1.npz: expected maps of 131×97 pixels like image image_1, found 130", needs)


def test_damaged_walks_are_the_users(tmp_path: Path):
    path = tmp_path / "a.npz"
    walk = Walk(np.array([2]), np.ones((2, 3, 4)), (24, 30), (24, 30), 8)
    with pytest.raises(UserError, match=r"result of a walk at .*found no file"):
        read_walk(path)
    write_walk(path, walk)
    assert read_walk(path).upsampled().shape == (2, 24, 30)
    with pytest.raises(UserError, match=r"expected classes 0 to 1 .* found \[2\]"):
        read_walk(path, 2)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="truncated or foreign file"):
        read_walk(path)
    write_walk(path, walk._replace(scores=np.full((2, 3, 4), np.nan)))
    with pytest.raises(UserError, match="found NaN"):
        read_walk(path)
    write_walk(path, walk._replace(keys=np.array([1, 2])))
    with pytest.raises(UserError, match=r"scores \[K \+ 1, h, w\]"):
        read_walk(path)
