"""From maps to LPCAM's network: features are sampled, clustered and chosen, and give new maps."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.reference.drawn_networks import (
    BACKBONES,
    CLASSES,
    Images,
    Trained,
    context,
)
from tests.toys.compiler import QUICK
from tests.toys.sections import run_section, stage_of
from wsss_jax.data.formats.cam_files import read_cams, write_cams
from wsss_jax.data.formats.feature_files import Samples, read_samples, write_samples
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.host.cosine_kmeans import cosine_kmeans
from wsss_jax.host.feature_samples import sides_of
from wsss_jax.host.upsampling import upsampled
from wsss_jax.inference.network import read_network
from wsss_jax.stages.base import Need
from wsss_jax.stages.class_features import ClassFeatures
from wsss_jax.stages.infer_cam import InferCam
from wsss_jax.stages.prototypes import Prototypes
from wsss_jax.stages.train import Train

IMAGES = Images(*[(20 + 3 * i, 40 - 2 * i) for i in range(7)])  # image 0 has no class
STRIDE = 8
SAMPLES = dict(split="train", max_buckets=1, batch_pixels=1 << 13, threshold=0.3)
LPCAM = dict(name="lpcam", backbone=BACKBONES["tiny"], clusters=4)
CLUSTERS = dict(split="train", method=LPCAM, prototype=0.4, context=(0.3, 0.5))


def maps_of(index: int) -> np.ndarray:
    """Made-up maps of the classes of an image."""
    keys = np.flatnonzero(IMAGES.label(index))
    height, width = IMAGES.sizes[index]
    rng = np.random.default_rng(100 + index)
    return rng.random((len(keys), height, width)).astype(np.float16)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of a classifier, of its maps, of sampled features and of LPCAM's network."""
    folder = tmp_path_factory.mktemp("lpcam")
    Trained(folder / "train", "cam", "tiny")
    for index, name in enumerate(IMAGES.ids):
        keys = np.flatnonzero(IMAGES.label(index))
        write_cams(folder / "cam" / "cams" / f"{name}.npz", keys, maps_of(index))
    found = {"checkpoint": folder / "train", "cams": folder / "cam"}
    metrics = run_section(ClassFeatures, context(folder / "features", IMAGES), SAMPLES, found)
    assert metrics["images"] == metrics["sampled"] == len(IMAGES)
    found["features"] = folder / "features"
    write_json(folder / "features.json", metrics)
    clustered(found, folder / "prototypes")
    return found | {"prototypes": folder / "prototypes"}


def clustered(inputs: dict[str, Path], folder: Path, **changes: Any) -> dict[str, Any]:
    """The figures of the stage, which leaves its settings as a run does."""
    section = CLUSTERS | changes
    metrics = run_section(Prototypes, context(folder, IMAGES), section, inputs)
    write_json(folder / "config.json", {"method": section["method"]})
    return metrics


def features_by_hand(inputs: dict[str, Path]) -> list[np.ndarray]:
    """``conv6`` of each image at its own size, in one program for a canvas of all sizes."""
    method, weights = read_network(inputs["checkpoint"], CLASSES, "features")
    canvas = np.zeros((len(IMAGES), 40, 40, 3), np.uint8)
    valid = np.zeros(canvas.shape[:3], bool)
    for index, (height, width) in enumerate(IMAGES.sizes):
        canvas[index, :height, :width] = IMAGES.pixels(index)
        valid[index, :height, :width] = True
    program = jax.jit(method.features).lower(weights, canvas, valid)
    features = np.asarray(program.compile(compiler_options=QUICK)(weights, canvas, valid))
    return [
        one[: -(-height // STRIDE), : -(-width // STRIDE)]
        for one, (height, width) in zip(features, IMAGES.sizes, strict=True)
    ]


def samples_of(folder: Path, index: int, key: int, inside: bool) -> np.ndarray:
    samples = read_samples(folder / "features" / f"{IMAGES.ids[index]}.npz")
    return samples.features[(samples.keys == key) & (samples.inside == inside)]


def test_features_are_those_of_the_pixels_on_each_side(run: dict[str, Path]):
    count = 0
    for index, features in enumerate(features_by_hand(run)):
        keys = np.flatnonzero(IMAGES.label(index)).tolist()
        for key, cam in zip(keys, maps_of(index), strict=True):
            for side, places in enumerate(sides_of(cam, features.shape[:2], 0.3)):
                rows = features.reshape(-1, features.shape[-1])[places]
                found = samples_of(run["features"], index, key, side == 0)
                assert_allclose(found, rows, atol=1e-4 * np.abs(features).max())
                count += len(rows)
    assert count > 100
    nothing = read_samples(run["features"] / "features" / "image_0.npz")
    assert len(nothing.keys) == 0


def test_samples_do_not_depend_on_what_was_done_before_or_on_processes(
    run: dict[str, Path], tmp_path: Path
):
    settings = SAMPLES | dict(samples=6)
    inputs = {name: run[name] for name in ("checkpoint", "cams")}
    contents: list[dict[str, Samples]] = []
    for case in ("whole", "resumed", "shared"):
        folder = tmp_path / case
        parts = [(0, 1)]
        if case == "resumed":
            names = ("image_2", "image_5")
            for name in names:
                done = folder / "features" / f"{name}.npz"
                done.parent.mkdir(parents=True, exist_ok=True)
                done.write_bytes((tmp_path / "whole" / "features" / f"{name}.npz").read_bytes())
        if case == "shared":
            parts = [(0, 2), (1, 2)]
        for index, count in parts:
            ctx = context(folder, IMAGES, index, count)
            metrics = run_section(ClassFeatures, ctx, settings, inputs)
            assert metrics["sampled"] == {"whole": 7, "resumed": 5}.get(case, 4 - index)
        everything = {path.name: path for path in (folder / "features").iterdir()}
        assert len(everything) == len(IMAGES)
        contents.append({name: read_samples(one) for name, one in everything.items()})
    sizes = np.zeros((CLASSES, 2), int)
    for name, samples in contents[0].items():
        np.add.at(sizes, (samples.keys, samples.inside.astype(int)), 1)
        for other in contents[1:]:
            assert_array_equal(other[name].keys, samples.keys)
            assert_array_equal(other[name].inside, samples.inside)
            assert_allclose(other[name].features, samples.features, rtol=1e-4, atol=1e-4)
    assert (sizes == 6).all()
    assert all(min(sides.values()) > 6 for sides in metrics["found"].values())


def test_another_seed_draws_other_samples(run: dict[str, Path], tmp_path: Path):
    drawn = []
    for seed in (0, 1):
        ctx = context(tmp_path / str(seed), IMAGES)
        ctx.config.seed = seed
        inputs = {name: run[name] for name in ("checkpoint", "cams")}
        run_section(ClassFeatures, ctx, SAMPLES | dict(samples=5), inputs)
        folder = ctx.stage_dir / "features"
        drawn.append([read_samples(folder / f"{name}.npz").keys.tolist() for name in IMAGES.ids])
    assert drawn[0] != drawn[1]


def test_the_network_holds_the_chosen_centers(run: dict[str, Path]):
    _, classifier = read_network(run["checkpoint"], CLASSES, "cam")
    kernel = classifier["params"]["fc8"]["kernel"][0, 0]
    _, weights = read_network(run["prototypes"], CLASSES, "cam")
    backbone = weights["params"]["backbone"], classifier["params"]["backbone"]
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, *backbone)))
    kept = 0
    for key in range(CLASSES):
        for side, name in enumerate(("foreground", "context")):
            rows = [samples_of(run["features"], i, key, side == 0) for i in range(len(IMAGES))]
            x = np.concatenate([one for one in rows if one.size])
            start = np.random.default_rng((0, key, side)).choice(len(x), 4, replace=False)
            centers = cosine_kmeans(x, x[start], 5.0, 100).filled().astype(float)
            logits = centers @ kernel
            exponents = np.exp(logits - logits.max(1, keepdims=True))
            p = (exponents / exponents.sum(1, keepdims=True))[:, key]
            chosen = p > 0.4 if side == 0 else (p > 0.3) & (p < 0.5)
            if side == 0 and not chosen.any():
                chosen = p == p.max()
            places = weights["prototypes"][name][key]
            count = int(chosen.sum())
            assert_allclose(places[:count], centers[chosen], rtol=1e-5, atol=1e-6)
            assert not places[count:].any()
            kept += count
    assert kept > CLASSES


def test_maps_are_made_as_with_a_trained_network(run: dict[str, Path], tmp_path: Path):
    section = dict(
        split="train", scales=(1.0,), flip=False, normalize="max", upsample="direct", max_buckets=1
    )
    few = Images(*IMAGES.sizes[:2])
    inputs = {"checkpoint": run["prototypes"]}
    run_section(InferCam, context(tmp_path, few), section, inputs)
    method, weights = read_network(run["prototypes"], CLASSES, "cam")
    keys, cam = read_cams(tmp_path / "cams" / "image_1.npz", CLASSES)
    size = IMAGES.sizes[1]
    assert keys.tolist() == [0] and cam.shape == (1, *size)
    image = IMAGES.pixels(1)[None]
    valid = np.ones(image.shape[:3], bool)
    program = jax.jit(method.predict).lower(weights, image, valid)
    low = program.compile(compiler_options=QUICK)(weights, image, valid)["cam"]
    expected = np.maximum(upsampled(np.asarray(low)[..., 0], size, size, "direct"), 0)
    assert expected.max() > 0.05
    assert_allclose(cam, expected / (expected.max() + 1e-5), atol=2e-3)


def test_a_class_without_clusters_of_its_own_is_told(run: dict[str, Path], tmp_path: Path):
    """Nothing is certain enough; then there is no context either; then there are no features."""
    metrics = clustered(run, tmp_path / "unsure", prototype=0.999999, context=(0.0, 0.0))
    (warning,) = metrics["warnings"]
    assert (
        "no cluster of 3 classes reaches the probability 0.999999" in warning and "cow" in warning
    )
    for figures in metrics["clusters"].values():
        assert figures["foreground"]["chosen"] == 1 and figures["context"]["chosen"] == 0
    _, weights = read_network(tmp_path / "unsure", CLASSES, "cam")
    assert not weights["prototypes"]["context"].any()

    only_dogs = tmp_path / "dogs" / "features"
    for path in (run["features"] / "features").iterdir():
        samples = read_samples(path)
        own = samples.keys == 1
        write_samples(only_dogs / path.name, Samples(*(one[own] for one in samples)))
    metrics = clustered(run | {"features": only_dogs.parent}, tmp_path / "lpcam")
    assert "2 classes have no features, so their maps stay empty: cat, cow" in metrics["warnings"]
    _, weights = read_network(tmp_path / "lpcam", CLASSES, "cam")
    arrays = weights["prototypes"]["foreground"]
    assert not arrays[[0, 2]].any() and arrays[1].any() and np.isfinite(arrays).all()

    nothing = tmp_path / "nothing" / "features"
    for name in IMAGES.ids:
        empty = np.zeros(0, np.int32), np.zeros(0, bool), np.zeros((0, 0), np.float32)
        write_samples(nothing / f"{name}.npz", Samples(*empty))
    with pytest.raises(UserError, match=r"expected maps above the threshold .* found none of any"):
        clustered(run | {"features": nothing.parent}, tmp_path / "none")
    assert not (tmp_path / "none" / "weights.npz").exists()


def test_the_first_process_alone_clusters(run: dict[str, Path], tmp_path: Path):
    assert run_section(Prototypes, context(tmp_path, IMAGES, 1, 2), CLUSTERS, run) == {}
    assert not [*tmp_path.iterdir()]


def test_damaged_features_are_refused(run: dict[str, Path], tmp_path: Path):
    good = read_samples(run["features"] / "features" / "image_3.npz")
    wrong = {
        "expected finite features": good._replace(features=good.features * np.nan),
        "expected keys .n., inside": good._replace(keys=good.keys[1:]),
        "expected classes 0 to 2, found 7": good._replace(keys=good.keys + 7 - good.keys.min()),
        "expected features of 32 channels, found 16": good._replace(features=good.features[:, :16]),
    }
    for number, (message, samples) in enumerate(wrong.items()):
        folder = tmp_path / str(number)
        shutil.copytree(run["features"], folder)
        path = folder / "features" / "image_3.npz"
        np.savez(path, **samples._asdict())
        with pytest.raises(UserError, match=message):
            clustered(run | {"features": folder}, tmp_path / "out")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="found a truncated or foreign file"):
        clustered(run | {"features": folder}, tmp_path / "out")
    path.unlink()
    with pytest.raises(
        UserError, match=r"expected a file of features .* found none for 1: image_3"
    ):
        clustered(run | {"features": folder}, tmp_path / "out")


def test_maps_of_another_size_are_refused(run: dict[str, Path], tmp_path: Path):
    shutil.copytree(run["cams"], tmp_path / "cam")
    write_cams(tmp_path / "cam" / "cams" / "image_1.npz", np.array([0]), np.ones((1, 9, 9)))
    inputs = {"checkpoint": run["checkpoint"], "cams": tmp_path / "cam"}
    with pytest.raises(UserError, match=r"expected maps of 38×23 pixels like image image_1, found"):
        run_section(ClassFeatures, context(tmp_path / "out", IMAGES), SAMPLES, inputs)


def needs_of(checkpoint: dict[str, Any], sampled: str = "train") -> dict[str, Need]:
    method = dict(backbone=BACKBONES["tiny"]) | checkpoint
    network = dict(split="train", method=method, optimizer=dict(lr=0.1), batch_size=1, epochs=1)
    sampling = SAMPLES | dict(needs=dict(checkpoint=sampled, cams="cam"))
    return {
        "checkpoint": Need("train", stage_of(Train, network)),
        "features": Need("class_features", stage_of(ClassFeatures, sampling)),
    }


def test_what_cannot_be_clustered_is_refused_beforehand():
    stage = stage_of(Prototypes, CLUSTERS)
    for name in ("cam", "ssenet", "puzzle_cam"):
        stage.check(needs_of(dict(name=name)))
    with pytest.raises(UserError, match=r"by a linear layer fc8 without bias.*train with pss"):
        stage.check(needs_of(dict(name="pss", features=20)))
    resnet = dict(name="resnet")
    stage = stage_of(Prototypes, CLUSTERS | dict(method=dict(name="lpcam", backbone=resnet)))
    normed = dict(resnet, bn_momentum=0.1)  # LPCAM's own batch norm has to be frozen
    stage.check(needs_of(dict(name="puzzle_cam", backbone=normed)))
    stage = stage_of(Prototypes, CLUSTERS)
    with pytest.raises(UserError, match=r"by a linear layer fc8 without bias.*train with seam"):
        stage.check(needs_of(dict(name="seam", dims=(8, 8, 8))))
    with pytest.raises(UserError, match="settings of that of train, whose features"):
        stage.check(needs_of(dict(name="cam", backbone=dict(name="tiny", width=16))))
    with pytest.raises(UserError, match="samples those of other: change one of the two"):
        stage.check(needs_of(dict(name="cam"), sampled="other"))
