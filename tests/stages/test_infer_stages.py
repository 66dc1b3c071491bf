"""The stages that apply a network: activation maps, masks, masks after a CRF."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.reference.drawn_networks import (
    CLASSES,
    SETTINGS,
    TEN,
    Images,
    Trained,
    context,
    trained_networks,
)
from tests.toys.sections import run_section
from wsss_jax.data.formats.cam_files import read_cams
from wsss_jax.data.masks import decode_mask
from wsss_jax.errors import UserError
from wsss_jax.host.dense_crf import CrfSettings, dense_crf, score_unary
from wsss_jax.host.logit_masks import LogitTask, write_logit_mask
from wsss_jax.host.upsampling import View, ViewMaps
from wsss_jax.inference.multi_scale import MultiScale
from wsss_jax.ops.mean_field import DeviceMeanField
from wsss_jax.stages.infer_cam import InferCam
from wsss_jax.stages.predict import Predict


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Trained]:
    return trained_networks(tmp_path_factory)


CAM = ConfigDict(dict(type="infer_cam", **SETTINGS))


@pytest.fixture(scope="module")
def maps_of_ten(trained: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ten")
    inputs = {"checkpoint": trained("cam", "tiny").folder}
    metrics = run_section(InferCam, context(folder, TEN), CAM, inputs)
    assert (metrics["images"], metrics["inferred"]) == (10, 10)
    return folder


def test_maps_are_normalized_and_as_large_as_the_image(maps_of_ten: Path, trained: Callable):
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
    metrics = run_section(InferCam, context(tmp_path, TEN), CAM, inputs)
    assert metrics["inferred"] == 6
    assert {p.name: p.read_bytes() for p in (tmp_path / "cams").iterdir()} == whole


def test_a_device_sums_and_normalizes_to_the_same_maps(
    maps_of_ten: Path, trained: Callable, tmp_path: Path
):
    settings = ConfigDict(dict(CAM, sum_on="device"))
    inputs = {"checkpoint": trained("cam", "tiny").folder}
    run_section(InferCam, context(tmp_path, TEN), settings, inputs)
    for name in TEN.ids:
        ours, theirs = (read_cams(p / "cams" / f"{name}.npz") for p in (tmp_path, maps_of_ten))
        np.testing.assert_array_equal(ours.keys, theirs.keys)
        assert ours.cam.dtype == np.float16
        np.testing.assert_allclose(ours.cam, theirs.cam, atol=2e-3)


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("known_labels", [False, True])
def test_a_device_sums_logits_to_the_same_masks(
    trained: Callable, tmp_path: Path, crf: bool, known_labels: bool
):
    inputs = {"checkpoint": trained("segmentation", "tiny").folder}
    images = Images((40, 40), (33, 47), (36, 36))
    settings = dict(SETTINGS, type="predict", crf=crf, known_labels=known_labels, workers=1)
    masks: dict[str, list[np.ndarray]] = {}
    for where in ("host", "device"):
        ctx = context(tmp_path / where, images)
        run_section(Predict, ctx, ConfigDict(dict(settings, sum_on=where)), inputs)
        files = [tmp_path / where / "masks" / f"{name}.png" for name in images.ids]
        masks[where] = [decode_mask(path.read_bytes(), path.name, CLASSES) for path in files]
    for host, device, size in zip(masks["host"], masks["device"], images.sizes, strict=True):
        assert device.shape == size and (host == device).mean() > 0.995
    assert len(np.unique(np.concatenate([mask.ravel() for mask in masks["device"]]))) > 1


def test_processes_share_the_images(maps_of_ten: Path, trained: Callable, tmp_path: Path):
    inputs = {"checkpoint": trained("cam", "tiny").folder}
    made: list[str] = []
    for index in range(3):
        folder = tmp_path / str(index)
        run_section(InferCam, context(folder, TEN, index, 3), CAM, inputs)
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
    metrics = run_section(
        Predict, context(tmp_path, images), settings, {"checkpoint": network.folder}
    )
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
    assert run_section(Predict, ctx, ConfigDict(settings), {"checkpoint": network.folder})["crf"]
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
    run_section(Predict, ctx, ConfigDict(settings), {"checkpoint": network.folder})
    assert path.stat().st_mtime_ns == written
    assert (tmp_path / "masks" / f"{images.ids[0]}.png").exists()


@pytest.mark.parametrize("crf", [False, True])
def test_masks_can_be_kept_to_the_labels(trained: Callable, tmp_path: Path, crf: bool):
    """Images without a class, with the first, the second, and both of them."""
    network = trained("segmentation", "tiny")
    images = Images((40, 40), (33, 47), (40, 30), (36, 36))
    settings = ConfigDict(dict(SETTINGS, type="predict", known_labels=True, crf=crf, workers=1))
    run_section(Predict, context(tmp_path, images), settings, {"checkpoint": network.folder})
    how = MultiScale(scales=(0.5, 1.0))
    for index, name in enumerate(images.ids):
        data = (tmp_path / "masks" / f"{name}.png").read_bytes()
        mask = decode_mask(data, name, CLASSES)
        shown = np.concatenate([[0], np.flatnonzero(images.label(index)) + 1])
        assert set(np.unique(mask)) <= set(shown.tolist())
        if not crf:
            logits = network.one_by_one("logits", images.pixels(index), shown, how)
            clear = np.diff(np.sort(logits, 0)[-2:], axis=0)[0] > 1e-3 if index else mask == 0
            assert clear.mean() > 0.9
            np.testing.assert_array_equal(mask[clear], shown[logits.argmax(0)][clear])


def test_masks_cannot_be_kept_to_labels_that_nobody_gave(trained: Callable, tmp_path: Path):
    settings = ConfigDict(dict(SETTINGS, type="predict", known_labels=True))
    inputs = {"checkpoint": trained("segmentation", "tiny").folder}
    with pytest.raises(UserError, match=r"expected labels of the images .* found none"):
        run_section(Predict, context(tmp_path, Images((40, 40))), settings, inputs)


def test_a_crf_changes_masks_of_noise(tmp_path: Path):
    images = Images((33, 47))
    logits = np.random.default_rng(0).normal(0, 1, (CLASSES + 1, 33, 47)).astype(np.float32)
    view = View(logits, (33, 47), flipped=False)
    maps = ViewMaps((33, 47), np.arange(CLASSES + 1), (view,), "corners", relu_each=False)
    task = LogitTask("a", maps, images[0]["image"])
    path = tmp_path / "a.png"
    write_logit_mask(task, (path,))
    np.testing.assert_array_equal(decode_mask(path.read_bytes(), "a", CLASSES), logits.argmax(0))
    task = dataclasses.replace(task, crf=CrfSettings(iterations=5))
    write_logit_mask(task, (path,))
    refined = decode_mask(path.read_bytes(), "a", CLASSES)
    write_logit_mask(task, (tmp_path / "device.png",), DeviceMeanField)
    assert (tmp_path / "device.png").read_bytes() == path.read_bytes()
    border = (np.diff(refined.astype(int)) != 0).mean()
    assert border < (np.diff(logits.argmax(0)) != 0).mean() / 4
    narrow = CrfSettings(bilateral=(1e-6, 13.0, 10.0))
    with pytest.raises(UserError, match=r"CRF of image a: .* widen the kernel"):
        write_logit_mask(dataclasses.replace(task, crf=narrow), (path,))
