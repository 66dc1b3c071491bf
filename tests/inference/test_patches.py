"""Inference with strides that are no powers of two, and with backbones that bear no padding."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import numpy as np
import pytest

from tests.reference.drawn_networks import (
    CLASSES,
    Images,
    Trained,
    maps_of,
    network_maps,
    summed,
    trained_networks,
)
from wsss_jax.inference.multi_scale import MultiScale
from wsss_jax.inference.network import Network, load_network
from wsss_jax.models.base import Backbone
from wsss_jax.models.layers import Conv
from wsss_jax.models.tiny import Tiny

# No side is a multiple of the patch, 14; the first image has no label.
ODD = Images((40, 40), (45, 61), (1, 1), (5, 64), (83, 31))


class Mean(Backbone):
    """Adds the mean over the canvas to all features, so that padding changes every one of them."""

    exact_padding: ClassVar[bool] = False
    pixel_mean, pixel_std = Tiny.pixel_mean, Tiny.pixel_std

    @property
    def tap_strides(self) -> Mapping[str, int]:
        return {"conv6": 4}

    @nn.compact
    def __call__(self, x: Any, valid: Any = None, *, train: bool = False) -> dict[str, Any]:
        del valid, train
        odd = tuple((0, -side % 4) for side in x.shape[1:3])
        x = Conv(8, 4, 4, padding=(odd[0], odd[1]), name="stem")(x)
        return {"conv6": nn.relu(x + x.mean((1, 2), keepdims=True))}


class Padded(Mean):
    """Claims to bear padding, which it does not."""

    exact_padding: ClassVar[bool] = True


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Trained]:
    return trained_networks(tmp_path_factory)


def differences(network: Network, alone: Trained, how: MultiScale) -> list[float]:
    """Largest difference to maps that are computed image by image at exact sizes, of each image."""
    maps, found = network_maps(ODD, network, how), []
    for job, views in maps_of(maps, range(len(ODD))):
        total = summed(views)
        assert total.shape == (len(views.channels), *ODD.sizes[job.position])
        expected = alone.one_by_one("cam", ODD.pixels(job.position), views.channels, how)
        largest = np.abs(expected).max(initial=1e-9)
        found.append(float(np.abs(total - expected).max(initial=0) / largest))
    assert len(found) == len(ODD)
    return found


@pytest.mark.parametrize("name", ["cam", pytest.param("seam", marks=pytest.mark.slow)])
def test_padded_transformers_equal_those_at_exact_sizes(name: str, trained: Callable):
    alone = trained(name, "small_vit")
    network = load_network(alone.folder, CLASSES, "cam")
    assert network.stride == 14
    for upsample in ("corners", "direct"):
        how = MultiScale(scales=(0.5, 1.3), max_buckets=1, upsample=upsample)
        buckets = network_maps(ODD, network, how).plan.buckets
        sides = [side for bucket in buckets for size in bucket for side in size]
        assert len(buckets) == 1 and all(side % 14 == 0 for side in sides)
        assert max(differences(network, alone, how)) < 1e-5


def test_without_exact_padding_no_image_is_padded(trained: Callable):
    how = MultiScale(scales=(1.0,), max_buckets=1)
    alone = trained("cam", f"{__name__}:Mean")
    network = load_network(alone.folder, CLASSES, "cam")
    buckets = network_maps(ODD, network, how).plan.buckets
    assert set(buckets) == {(size,) for size in ODD.sizes}
    assert max(differences(network, alone, how)) < 1e-5
    # The flag decides: with it the same network's maps are wrong.
    alone = trained("cam", f"{__name__}:Padded")
    wrong = load_network(alone.folder, CLASSES, "cam")
    assert max(differences(wrong, alone, how)) > 1e-2


def test_sides_are_multiples_of_all_strides():
    how = MultiScale(max_buckets=3)

    def multiple(**strides: int) -> int:
        class Strides(Mean):
            exact_padding: ClassVar[bool] = True
            tap_strides = strides  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

        (((height, width),),) = how.padded([((1, 1),)], Strides()).buckets
        assert height == width
        return height

    assert multiple(conv3=4, conv6=8) == 8
    assert multiple(conv3=4, conv4=8, conv6=16) == multiple(conv6=16) == 16
    assert multiple(conv6=14) == 14
    assert multiple(conv3=4, conv6=14) == 28
    assert multiple(conv6=48) == 48
