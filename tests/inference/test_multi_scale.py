"""Inference in a few padded shapes equals inference image by image at exact sizes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.reference.drawn_networks import (
    CLASSES,
    TEN,
    Images,
    Trained,
    context,
    maps_of,
    network_maps,
    summed,
    trained_networks,
)
from tests.toys.sections import run_section
from wsss_jax.errors import UserError
from wsss_jax.host.normalization import normalized
from wsss_jax.inference.device_sum import wanted
from wsss_jax.inference.multi_scale import MultiScale, PaddedShapes
from wsss_jax.inference.network import load_network
from wsss_jax.stages.infer_cam import InferCam


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Trained]:
    return trained_networks(tmp_path_factory)


# The first has no label.
ODD = Images((40, 40), (45, 61), (1, 1), (5, 64))
SMALL = Images((24, 31), (45, 61))


TINY = "tiny", ODD, dict(scales=(0.5, 1.3), max_buckets=1)
MOBILENET = "mobilenet_v2", SMALL, dict(scales=(1.0,), max_buckets=1)


@pytest.mark.parametrize(
    ("name", "backbone", "images", "settings"),
    [
        pytest.param("cam", *TINY, marks=pytest.mark.slow),
        ("seam", *TINY),
        ("cam", *MOBILENET),
        pytest.param("seam", *MOBILENET, marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_padded_batches_equal_single_images_at_exact_sizes(
    name: str, backbone: str, images: Images, settings: dict, trained: Callable
):
    network_of = trained(name, backbone)
    loaded = load_network(network_of.folder, CLASSES, "cam")
    shapes = set()

    def spy(batch: np.ndarray, valid: np.ndarray) -> jax.Array:
        shapes.add(batch.shape)
        return loaded.predict(batch, valid)

    network = dataclasses.replace(loaded, predict=spy)
    assert network.stride == {"tiny": 8, "mobilenet_v2": 16}[backbone]
    variants = [dict(upsample="corners"), dict(upsample="direct", relu_each=True, flip=False)]
    variants += [one | dict(sum_on="device") for one in variants]
    for variant in variants if backbone == "tiny" else variants[::2]:
        how = MultiScale(**settings, **variant, batch_pixels=1 << 14)
        maps = network_maps(images, network, how)
        seen = []
        everything = range(len(images))
        for job, views in maps_of(maps, everything):
            index, keys, total = job.position, views.channels, summed(views)
            seen.append(index)
            np.testing.assert_array_equal(keys, np.flatnonzero(images.label(index)))
            assert total.shape == (len(keys), *images.sizes[index])
            expected = network_of.one_by_one("cam", images.pixels(index), keys, how)
            largest = np.abs(expected).max(initial=0)
            np.testing.assert_allclose(total, expected, rtol=0, atol=1e-4 * largest)
        assert sorted(seen) == list(everything)
    # A program per bucket and scale, for either number of copies of an image.
    programs = settings["max_buckets"] * len(settings["scales"])
    assert len(shapes) <= 2 * programs


def test_a_huge_image_is_looked_at_smaller(trained: Callable):
    images = Images((3000, 4000))
    network = load_network(trained("cam", "tiny").folder, CLASSES, "cam")
    how = MultiScale(scales=(0.5, 2.0), max_pixels=12_000, batch_pixels=1)
    assert how.scaled((3000, 4000), 0.5) == how.scaled((3000, 4000), 2.0) == (95, 126)
    maps = network_maps(images, network, how, lambda _: np.array([2]))
    assert maps.plan.buckets == (((96, 128), (96, 128)),)
    ((_, views),) = maps_of(maps, range(1))
    total = summed(views)
    assert views.channels.tolist() == [2] and total.shape == (1, 3000, 4000)
    assert np.isfinite(total).all() and total.std() > 0


def test_scaled_sizes():
    shapes = PaddedShapes(max_pixels=3_000_000)

    def sizes(height: int, width: int) -> list[tuple[int, int]]:
        return [shapes.scaled((height, width), scale) for scale in (0.5, 1.0, 2.0)]

    assert sizes(375, 500) == [(188, 250), (375, 500), (750, 1000)]
    assert sizes(1, 1) == [(1, 1), (1, 1), (2, 2)]
    assert sizes(1, 3) == [(1, 2), (1, 3), (2, 6)]
    for size in sizes(3000, 4000):
        assert 0.99 * 3_000_000 < size[0] * size[1] < 1.01 * 3_000_000
        assert size[1] / size[0] == pytest.approx(4 / 3, rel=1e-3)


def test_normalized_maps():
    total = np.array([[[-1.0, 1.0], [2.0, 5.0]], [[-1.0, -2.0], [-3.0, 0.0]]], np.float32)
    high = normalized(total, "max")
    np.testing.assert_allclose(high[0], np.array([[0, 1], [2, 5]]) / 5, atol=1e-5)
    both = normalized(total + 2 * (total > 0), "min_max")
    np.testing.assert_allclose(both[0], np.array([[0, 3], [4, 7]]) / 7, atol=1e-5)
    shifted = normalized(np.array([[[2.0, 3.0], [4.0, 6.0]]], np.float32), "min_max")
    np.testing.assert_allclose(shifted[0], np.array([[0, 1], [2, 4]]) / 4, atol=1e-5)
    assert not high[1].any() and not both[1].any()
    assert normalized(np.zeros((0, 4, 5), np.float32), "max").shape == (0, 4, 5)
    # Beyond the image, a device has values that must not count.
    larger = np.pad(total + 7, ((0, 0), (0, 1), (0, 2)), constant_values=99)
    larger[:, 2, 0] = -5
    inside = np.zeros((3, 4), bool)
    inside[:2, :2] = True
    for kind in ("max", "min_max"):
        device = normalized(jnp.asarray(larger), kind, jnp.asarray(inside), jnp)
        np.testing.assert_allclose(device[:, :2, :2], normalized(total + 7, kind), atol=1e-6)


def test_a_device_gets_few_different_numbers_of_channels():
    for most, slots in ((0, 2), (1, 2), (2, 2), (3, 8), (8, 8), (9, 20), (20, 20)):
        images = wanted([np.arange(most), np.arange(1)], [(5, 7), (3, 2)], rows=3, of=20)
        assert images.channels.shape == (3, slots)
        assert images.channels[0, :most].tolist() == list(range(most))
        assert images.counts.tolist() == [most, 1, 0]
        assert images.sizes.tolist() == [[5, 7], [3, 2], [1, 1]]


def test_mistakes_are_the_users(trained: Callable, tmp_path: Path):
    folder = trained("cam", "tiny").folder
    with pytest.raises(
        UserError, match=r"one of cam, which the network of .*cam.* predicts, found 'logits'"
    ):
        load_network(folder, CLASSES, "logits")
    with pytest.raises(UserError, match="found those of another one"):
        load_network(folder, CLASSES + 1, "cam")
    with pytest.raises(UserError, match="expected a file at"):
        load_network(tmp_path, CLASSES, "cam")
    with pytest.raises(UserError, match="upsample to be one of 'corners', 'direct', found 'bilin"):
        MultiScale.from_config({"upsample": "bilinear"})
    for scales in ((), (0.5, 0.0)):
        with pytest.raises(UserError, match="expected positive scales"):
            MultiScale(scales=scales)
    with pytest.raises(
        UserError, match=r"normalise is not a setting of .*; did you mean normalize"
    ):
        run_section(InferCam, context(tmp_path, TEN), {"split": "train", "normalise": "max"}, {})
    settings = ConfigDict(dict(split="train", normalize="softmax"))
    with pytest.raises(UserError, match="normalize to be one of 'min_max', 'max', found 'softmax'"):
        run_section(InferCam, context(tmp_path, TEN), settings, {"checkpoint": folder})


@pytest.mark.parametrize("name", ["max_pixels", "max_buckets", "batch_pixels"])
@pytest.mark.parametrize("value", [0, -1])
def test_limits_that_leave_nothing_are_refused(name: str, value: int):
    with pytest.raises(UserError, match=f"expected {name} of 1 or more, found {value}"):
        MultiScale.from_config({name: value})
