"""Inference in a few padded shapes equals inference image by image at exact sizes."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

from wsss_jax.context import Context
from wsss_jax.data.augment import resize_image
from wsss_jax.data.cam_files import read_cams
from wsss_jax.data.images import decode_mask
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.inference import MultiScale, Network, chunks, image_sizes, load_network, summed_maps
from wsss_jax.logit_masks import LogitTask, write_logit_mask
from wsss_jax.methods import build_method
from wsss_jax.ops.dense_crf import CrfSettings, dense_crf, score_unary
from wsss_jax.stages import infer_cam, predict
from wsss_jax.train import variable_shapes
from wsss_jax.weights import save_weights

CLASSES = 3
FIELDS: dict[str, dict] = {
    "cam": {},
    "seam": dict(dims=(8, 8, 8)),
    "segmentation": dict(head=dict(name="large_fov", features=16, dilation=2)),
}
BACKBONES: dict[str, dict] = {
    "tiny": dict(name="tiny", width=8),
    "mobilenet_v2": dict(name="mobilenet_v2", output_stride=16),
}


class Images:
    """Noise of given sizes; image i has the classes of the bits of i, so image 0 has none."""

    classes: tuple[str, ...] = ("cat", "dog", "cow")
    digest = "images"

    def __init__(self, *sizes: tuple[int, int]):
        self.sizes = sizes
        self.ids = [f"image_{i}" for i in range(len(sizes))]

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, index: int) -> np.ndarray:
        coarse = np.random.default_rng(index).integers(0, 256, (4, 4, 3)).astype(np.uint8)
        return cv2.resize(coarse, self.sizes[index][::-1], interpolation=cv2.INTER_LINEAR)

    def label(self, index: int) -> np.ndarray:
        return np.array([index >> k & 1 for k in range(CLASSES)], np.float32)

    def __getitem__(self, index: int) -> Record:
        image = np.ascontiguousarray(self.pixels(index)[..., ::-1])
        data = cv2.imencode(".png", image)[1].tobytes()
        return Record(id=self.ids[index], image=data, label=self.label(index), segmentation=None)


@dataclasses.dataclass(frozen=True)
class Given(Context):
    """A context that has these images for every split."""

    images: Any = None

    def source(self, split: str) -> Any:
        return self.images


def bilinear(maps: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Maps [k, h, w] at another size."""
    for axis, length in enumerate(size, 1):
        have, position = maps.shape[axis], np.arange(length)
        if align_corners:
            at = position * ((have - 1) / max(length - 1, 1))
        else:
            at = np.clip((position + 0.5) * have / length - 0.5, 0, have - 1)
        low = np.floor(at).astype(int)
        weight = (at - low).reshape(-1, 1) if axis == 1 else at - low
        high = np.minimum(low + 1, have - 1)
        maps = np.take(maps, low, axis) * (1 - weight) + np.take(maps, high, axis) * weight
    return maps


class Trained:
    """The folder of a training stage, with weights drawn by chance."""

    def __init__(self, folder: Path, name: str, backbone: str):
        description = dict(name=name, backbone=BACKBONES[backbone], **FIELDS[name])
        self.folder, self.method = folder, build_method(description, CLASSES)
        params, variables = variable_shapes(self.method)
        self._shapes = {"params": params, **variables}
        rng, drawn = np.random.default_rng(0), {}
        shapes: dict[str, Any] = traverse_util.flatten_dict(self._shapes, sep="/")
        for path, shape in shapes.items():
            value = rng.normal(size=shape.shape)
            if path.endswith("kernel"):
                value *= (2 / np.prod(shape.shape[:-1])) ** 0.5
            else:
                value = 0.1 * value + path.endswith(("scale", "var"))
            drawn[path] = value.astype(np.float32)
        self.weights = traverse_util.unflatten_dict(drawn, sep="/")
        others = {k: v for k, v in self.weights.items() if k != "params"}
        save_weights(folder / "weights.npz", self.weights["params"], others)
        write_json(folder / "config.json", {"method": description})
        self._programs: dict[tuple[int, int], Any] = {}

    def _predict(self, image: np.ndarray) -> dict[str, Any]:
        """The method's prediction for one image, in a program of exactly its size."""
        size = image.shape[0], image.shape[1]
        if size not in self._programs:
            inputs = (
                jax.ShapeDtypeStruct((1, *size, 3), np.uint8),
                jax.ShapeDtypeStruct((1, *size), bool),
            )
            # It runs twice: not worth optimising.
            options: Any = {
                "xla_backend_optimization_level": 0,
                "xla_cpu_use_fusion_emitters": False,
            }
            lowered = jax.jit(self.method.predict).lower(self._shapes, *inputs)
            self._programs[size] = lowered.compile(compiler_options=options)
        valid = np.ones((1, *size), bool)
        return self._programs[size](self.weights, np.ascontiguousarray(image)[None], valid)

    def one_by_one(
        self, output: str, image: np.ndarray, keep: np.ndarray, how: MultiScale
    ) -> np.ndarray:
        """Maps summed over scales and flips, as one would write it down first."""
        height, width = image.shape[:2]
        total = np.zeros((len(keep), height, width))
        for scale in how.scales:
            size = max(round(height * scale), 1), max(round(width * scale), 1)
            scaled = resize_image(image, *size)
            for flip in (False, True) if how.flip else (False,):
                maps = self._predict(scaled[:, ::-1] if flip else scaled)[output]
                full = np.asarray(maps[0], np.float64).transpose(2, 0, 1)[keep]
                if how.enlarge == "corners":
                    full = bilinear(full, size, align_corners=True)
                full = bilinear(full, (height, width), align_corners=False)
                full = full[:, :, ::-1] if flip else full
                total += np.maximum(full, 0) if how.relu_each else full
        return total


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Trained]:
    return functools.cache(
        lambda name, backbone: Trained(tmp_path_factory.mktemp(name), name, backbone)
    )


# The first has no label.
ODD = Images((40, 40), (45, 61), (1, 1), (5, 64))
SMALL = Images((24, 31), (45, 61))


@pytest.mark.parametrize("name", ["cam", "seam"])
@pytest.mark.parametrize(
    ("backbone", "images", "settings"),
    [
        ("tiny", ODD, dict(scales=(0.5, 1.3), max_buckets=2)),
        ("mobilenet_v2", SMALL, dict(scales=(1.0,), max_buckets=1)),
    ],
    ids=["tiny", "mobilenet_v2"],
)
def test_padded_batches_equal_single_images_at_exact_sizes(
    name: str, backbone: str, images: Images, settings: dict, trained: Callable
):
    network_of = trained(name, backbone)
    loaded = load_network(network_of.folder, CLASSES, "cam")
    shapes = set()

    def spy(batch: np.ndarray, valid: np.ndarray) -> np.ndarray:
        shapes.add(batch.shape)
        return loaded.predict(batch, valid)

    network = Network(spy, loaded.stride)
    assert network.stride == {"tiny": 8, "mobilenet_v2": 16}[backbone]
    variants = [dict(enlarge="corners"), dict(enlarge="direct", relu_each=True, flip=False)]
    for variant in variants if backbone == "tiny" else variants[:1]:
        how = MultiScale(**settings, **variant, batch_pixels=1 << 14)
        buckets = how.buckets(set(image_sizes(images)))
        seen = []
        everything = range(len(images))
        for index, keys, total in summed_maps(
            images, everything, np.flatnonzero, network, how, buckets
        ):
            seen.append(index)
            np.testing.assert_array_equal(keys, np.flatnonzero(images.label(index)))
            assert total.shape == (len(keys), *images.sizes[index])
            expected = network_of.one_by_one("cam", images.pixels(index), keys, how)
            largest = np.abs(expected).max(initial=0)
            np.testing.assert_allclose(total, expected, rtol=0, atol=1e-4 * largest)
        assert seen == list(everything)
    # As many programs as buckets, for either number of copies of an image.
    assert len(shapes) <= len(variants) * settings["max_buckets"]


def context(folder: Path, images: Images, index: int = 0, count: int = 1) -> Given:
    folder.mkdir(parents=True, exist_ok=True)
    return Given(ConfigDict(), folder, "cam", folder, index, count, images)


SETTINGS = dict(split="train", scales=(0.5, 1.0), max_buckets=1, batch_pixels=1 << 14)
CAM = ConfigDict(dict(type="infer_cam", **SETTINGS))
TEN = Images(*[(20 + 3 * i, 40 - 2 * i) for i in range(10)])


@pytest.fixture(scope="module")
def maps_of_ten(trained: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ten")
    inputs = {"checkpoint": trained("cam", "tiny").folder}
    metrics = infer_cam.run(context(folder, TEN), CAM, inputs)
    assert (metrics["images"], metrics["inferred"]) == (10, 10)
    return folder


def test_maps_are_normalised_and_as_large_as_the_image(maps_of_ten: Path, trained: Callable):
    for index, name in enumerate(TEN.ids):
        keys, cam = read_cams(maps_of_ten / "cams" / f"{name}.npz", CLASSES)
        np.testing.assert_array_equal(keys, np.flatnonzero(TEN.label(index)))
        assert cam.shape == (len(keys), *TEN.sizes[index]) and cam.dtype == np.float16
        if index not in (1, 7):
            continue
        how = MultiScale(scales=(0.5, 1.0))
        expected = trained("cam", "tiny").one_by_one("cam", TEN.pixels(index), keys, how)
        for one, total in zip(cam, np.maximum(expected, 0), strict=True):
            spread = total.max() - total.min()
            expected_map = np.maximum(total - total.min() - 1e-5, 0) / (spread + 1e-5)
            np.testing.assert_allclose(one, expected_map, atol=2e-3)
            assert one.max() <= 1


def test_maps_do_not_depend_on_what_was_done_before(
    maps_of_ten: Path, trained: Callable, tmp_path: Path
):
    whole = {p.name: p.read_bytes() for p in (maps_of_ten / "cams").iterdir()}
    (tmp_path / "cams").mkdir()
    for done in ("image_0", "image_3", "image_4", "image_9"):
        (tmp_path / "cams" / f"{done}.npz").write_bytes(whole[f"{done}.npz"])
    inputs = {"checkpoint": trained("cam", "tiny").folder}
    metrics = infer_cam.run(context(tmp_path, TEN), CAM, inputs)
    assert metrics["inferred"] == 6
    assert {p.name: p.read_bytes() for p in (tmp_path / "cams").iterdir()} == whole


def test_processes_share_the_images(maps_of_ten: Path, trained: Callable, tmp_path: Path):
    inputs = {"checkpoint": trained("cam", "tiny").folder}
    made: list[str] = []
    for index in range(3):
        folder = tmp_path / str(index)
        infer_cam.run(context(folder, TEN, index, 3), CAM, inputs)
        for path in (folder / "cams").iterdir():
            made.append(path.stem)
            cams = read_cams(path), read_cams(maps_of_ten / "cams" / path.name)
            np.testing.assert_array_equal(cams[0].keys, cams[1].keys)
            np.testing.assert_allclose(cams[0].cam, cams[1].cam, atol=2e-3)
    assert sorted(made) == sorted(TEN.ids)


def test_masks_are_the_best_class_of_the_summed_logits(trained: Callable, tmp_path: Path):
    network = trained("segmentation", "tiny")
    images = Images((40, 40), (33, 47), (1, 1))
    settings = ConfigDict(dict(type="predict", **SETTINGS))
    metrics = predict.run(context(tmp_path, images), settings, {"checkpoint": network.folder})
    assert metrics["images"] == 3
    how = MultiScale(scales=(0.5, 1.0))
    for index, name in enumerate(images.ids):
        data = (tmp_path / "masks" / f"{name}.png").read_bytes()
        mask = decode_mask(data, name, CLASSES)
        logits = network.one_by_one("logits", images.pixels(index), np.arange(CLASSES + 1), how)
        best = np.sort(logits, 0)[-2:]
        clear = best[1] - best[0] > 1e-3 * np.abs(logits).max()
        assert mask.shape == images.sizes[index] and clear.mean() > 0.9
        np.testing.assert_array_equal(mask[clear], logits.argmax(0)[clear])


def test_masks_after_a_crf(trained: Callable, tmp_path: Path):
    network = trained("segmentation", "tiny")
    images = Images((40, 40), (33, 47))
    settings = dict(
        SETTINGS, type="predict", crf=True, workers=1, bilateral=(20, 60, 30), iterations=5
    )
    ctx = context(tmp_path, images)
    assert predict.run(ctx, ConfigDict(settings), {"checkpoint": network.folder})["crf"]
    how = MultiScale(scales=(0.5, 1.0))
    for index, name in enumerate(images.ids):
        path = tmp_path / "masks" / f"{name}.png"
        mask = decode_mask(path.read_bytes(), name, CLASSES)
        logits = network.one_by_one("logits", images.pixels(index), np.arange(CLASSES + 1), how)
        scores = np.exp((logits - logits.max(0)) / 4)  # the mean over two scales and two flips
        unary = score_unary((scores / scores.sum(0)).astype(np.float32))
        q = dense_crf(
            images.pixels(index),
            np.moveaxis(unary, 0, 2),
            gaussian=(3, 3),
            bilateral=(20, 60, 30),
            iterations=5,
        )
        clear = np.diff(np.sort(q, -1)[..., -2:])[..., 0] > 1e-3
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(mask[clear], q.argmax(-1)[clear])
    # A finished mask is kept.
    written = path.stat().st_mtime_ns
    (tmp_path / "masks" / f"{images.ids[0]}.png").unlink()
    predict.run(ctx, ConfigDict(settings), {"checkpoint": network.folder})
    assert path.stat().st_mtime_ns == written
    assert (tmp_path / "masks" / f"{images.ids[0]}.png").exists()


def test_a_crf_changes_masks_of_noise(tmp_path: Path):
    images = Images((33, 47))
    logits = np.random.default_rng(0).normal(0, 1, (CLASSES + 1, 33, 47)).astype(np.float32)
    task = LogitTask("a", logits, tmp_path / "a.png", images[0]["image"])
    write_logit_mask(task)
    np.testing.assert_array_equal(
        decode_mask(task.target.read_bytes(), "a", CLASSES), logits.argmax(0)
    )
    write_logit_mask(dataclasses.replace(task, crf=CrfSettings(iterations=5)))
    refined = decode_mask(task.target.read_bytes(), "a", CLASSES)
    border = (np.diff(refined.astype(int)) != 0).mean()
    assert border < (np.diff(logits.argmax(0)) != 0).mean() / 4


def test_a_huge_image_is_looked_at_smaller(trained: Callable):
    images = Images((3000, 4000))
    network = load_network(trained("cam", "tiny").folder, CLASSES, "cam")
    how = MultiScale(scales=(0.5, 2.0), max_pixels=12_000, batch_pixels=1)
    assert how.sizes((3000, 4000)) == [(95, 126), (95, 126)]
    buckets = how.buckets(set(image_sizes(images)))
    assert buckets == ((96, 128),)
    ((_, keys, total),) = summed_maps(
        images, range(1), lambda _: np.array([2]), network, how, buckets
    )
    assert keys.tolist() == [2] and total.shape == (1, 3000, 4000)
    assert np.isfinite(total).all() and total.std() > 0


def test_scaled_sizes():
    how = MultiScale(scales=(0.5, 1.0, 2.0), max_pixels=3_000_000)
    assert how.sizes((375, 500)) == [(188, 250), (375, 500), (750, 1000)]
    assert how.sizes((1, 1)) == [(1, 1), (1, 1), (2, 2)]
    assert how.sizes((1, 3)) == [(1, 2), (1, 3), (2, 6)]
    for size in how.sizes((3000, 4000)):
        assert 0.99 * 3_000_000 < size[0] * size[1] < 1.01 * 3_000_000
        assert size[1] / size[0] == pytest.approx(4 / 3, rel=1e-3)


def test_chunks_hold_few_images_or_few_pixels():
    small, large = (100, 100), (3000, 4000)
    mine = range(1, 200, 2)
    runs = chunks(mine, [small] * 200)
    assert [len(r) for r in runs] == [32, 32, 32, 4]
    assert [i for r in runs for i in r] == list(mine)
    sizes = [small, small, large, large, small, *[(2000, 2000)] * 3]
    assert [list(r) for r in chunks(range(8), sizes)] == [[0, 1], [2], [3], [4, 5], [6, 7]]
    assert chunks(range(0), []) == []


def test_normalised_maps():
    total = np.array([[[-1.0, 1.0], [2.0, 5.0]], [[-1.0, -2.0], [-3.0, 0.0]]], np.float32)
    high = infer_cam.normalise(total, "max")
    np.testing.assert_allclose(high[0], np.array([[0, 1], [2, 5]]) / 5, atol=1e-5)
    both = infer_cam.normalise(total + 2 * (total > 0), "min_max")
    np.testing.assert_allclose(both[0], np.array([[0, 3], [4, 7]]) / 7, atol=1e-5)
    shifted = infer_cam.normalise(np.array([[[2.0, 3.0], [4.0, 6.0]]], np.float32), "min_max")
    np.testing.assert_allclose(shifted[0], np.array([[0, 1], [2, 4]]) / 4, atol=1e-5)
    assert not high[1].any() and not both[1].any()
    assert infer_cam.normalise(np.zeros((0, 4, 5), np.float32), "max").shape == (0, 4, 5)


def test_mistakes_are_the_users(trained: Callable, tmp_path: Path):
    folder = trained("cam", "tiny").folder
    with pytest.raises(UserError, match="output to be one of cam, found 'logits'"):
        load_network(folder, CLASSES, "logits")
    with pytest.raises(UserError, match="found another one's"):
        load_network(folder, CLASSES + 1, "cam")
    with pytest.raises(UserError, match="expected a JSON file at"):
        load_network(tmp_path, CLASSES, "cam")
    with pytest.raises(UserError, match="enlarge to be corners or direct, found 'bilinear'"):
        MultiScale(enlarge="bilinear")
    for scales in ((), (0.5, 0.0)):
        with pytest.raises(UserError, match="expected positive scales"):
            MultiScale(scales=scales)
    settings = ConfigDict(dict(split="train", normalise="softmax"))
    with pytest.raises(UserError, match="normalise to be min_max or max, found 'softmax'"):
        infer_cam.run(context(tmp_path, TEN), settings, {"checkpoint": folder})
