"""LPCAM's network: maps from clusters of features, flips, padding; it cannot be trained."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.toys.compiler import QUICK
from tests.toys.light_methods import CLASSES, make, make_batch
from wsss_jax.errors import UserError
from wsss_jax.host.upsampling import View, ViewMaps
from wsss_jax.methods.base import Step
from wsss_jax.methods.lpcam import LpCam, prototype_maps
from wsss_jax.methods.variables import init_variables


def slow_maps(features: np.ndarray, prototypes: list, contexts: list) -> np.ndarray:
    """Mean cosines, one pixel and one cluster after the other; lists have no unused places."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / (max(np.linalg.norm(a), 1e-8) * max(np.linalg.norm(b), 1e-8)))

    maps = np.zeros((*features.shape[:3], len(prototypes)))
    for *pixel, c in np.ndindex(*maps.shape):
        feature = features[tuple(pixel)].astype(float)
        value = np.mean([cosine(feature, p) for p in prototypes[c]]) if len(prototypes[c]) else 0
        if len(contexts[c]):
            value = max(value - np.mean([cosine(feature, p) for p in contexts[c]]), 0)
        maps[(*pixel, c)] = value
    return maps


def in_places(clusters: list[np.ndarray], places: int) -> np.ndarray:
    arrays = np.zeros((len(clusters), places, clusters[0].shape[-1]), np.float32)
    for own, array in zip(clusters, arrays, strict=True):
        array[: len(own)] = own
    return arrays


def test_maps_against_loops():
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (2, 3, 4, 5)).astype(np.float32)
    features[0, 1, 2] = 0  # a pixel without direction
    features[1, 0, 0] *= 1e-12
    prototypes, contexts = (
        [rng.normal(0, 3, (n, 5)).astype(np.float32) for n in counts]
        for counts in ((3, 1, 0, 2, 0), (2, 0, 3, 4, 0))
    )
    given = (features, in_places(prototypes, 4), in_places(contexts, 4))
    found = prototype_maps(*map(jnp.asarray, given))
    expected = slow_maps(features, prototypes, contexts)
    assert_allclose(found, expected, atol=1e-6)
    assert (expected[..., 1] < 0).any()  # without context, negative values stay
    assert_array_equal(found[..., 4], 0)
    assert_array_equal(found[0, 1, 2], 0)


def test_golden_maps(golden: Path):
    """The second class has no context."""
    with np.load(golden / "lpcam.npz") as file:
        authors = dict(file)
    arrays = np.zeros((2, len(authors["w"]), 12, authors["w"].shape[1]), np.float32)
    for number, label in enumerate(authors["classes"]):
        for array, side, kept in zip(arrays, ("fg", "other"), ("fg", "context"), strict=True):
            rows = authors[f"centers_{side}_{number}"][authors[f"kept_{kept}_{number}"]]
            array[label, : len(rows)] = rows
    features = []
    for image, scale in np.ndindex(3, 4):
        plain, flipped = authors[f"ms_features_{image}_{scale}"]
        features.append(plain + flipped[:, ::-1])
    pixels = np.concatenate([one.reshape(-1, one.shape[-1]) for one in features])[None, None]
    maps = np.asarray(prototype_maps(*map(jnp.asarray, (pixels, *arrays))))[0, 0]
    ends = np.cumsum([one.shape[0] * one.shape[1] for one in features])
    parts = [
        part.reshape(*one.shape[:2], -1).transpose(2, 0, 1)
        for part, one in zip(np.split(maps, ends[:-1]), features, strict=True)
    ]
    for image, size in enumerate(authors["sizes"]):
        keys = authors[f"keys_{image}"]
        # The program resizes maps to whole pixels of stride 16 and cuts off what is too much.
        whole = -(-int(size[0]) // 16) * 16, -(-int(size[1]) // 16) * 16
        views = tuple(View(one[keys], whole, False) for one in parts[4 * image : 4 * image + 4])
        total = ViewMaps(whole, keys, views, "direct", False).summed()
        total = total[:, : size[0], : size[1]].transpose(1, 2, 0)
        expected = authors[f"lpcam_high_res_{image}"]
        assert_allclose(total / total.max((0, 1)), expected, atol=1e-5)


@functools.cache
def network(dtype: str) -> tuple[LpCam, dict[str, Any]]:
    method = make("lpcam", dtype=dtype)
    assert isinstance(method, LpCam)
    params, variables = init_variables(method, 0)
    return method, {"params": params, **variables}


IMAGES = make_batch()["image"][:2, :27, :21]  # no multiple of the stride
VIEWS = np.concatenate([IMAGES, IMAGES[:, :, ::-1]])


@functools.cache
def predicted(dtype: str) -> np.ndarray:
    method, weights = network(dtype)
    valid = np.ones(VIEWS.shape[:3], bool)
    program = jax.jit(method.predict).lower(weights, VIEWS, valid)
    cam = program.compile(compiler_options=QUICK)(weights, VIEWS, valid)["cam"]
    assert cam.dtype == jnp.float32
    return np.asarray(cam)


def test_the_network_adds_the_features_of_the_flipped_image():
    method, weights = network("float32")
    valid = np.ones(VIEWS.shape[:3], bool)
    program = jax.jit(method.features).lower(weights, VIEWS, valid)
    features = np.asarray(program.compile(compiler_options=QUICK)(weights, VIEWS, valid))
    plain, flipped = features[:2], features[2:, :, ::-1]
    assert np.abs(plain - flipped).max() > 0.01 * plain.max()
    clusters = (weights["prototypes"][name] for name in ("foreground", "context"))
    expected = slow_maps(plain + flipped, *([*np.asarray(one)] for one in clusters))
    found = predicted("float32")
    assert found.shape[-1] == CLASSES and expected.max() > 0.05
    assert_allclose(found[:2], expected, atol=1e-5)
    assert_allclose(found[2:, :, ::-1], found[:2], atol=1e-5)


def test_maps_in_bfloat16_are_close_to_those_in_float32():
    rough, maps = predicted("bfloat16"), predicted("float32")
    assert_allclose(rough, maps, atol=0.02)
    assert not np.array_equal(rough, maps)


def test_it_refuses_to_be_trained():
    method, weights = network("float32")
    assert set(weights) == {"params", "prototypes"} and set(weights["params"]) == {"backbone"}
    batch = jax.tree.map(jnp.asarray, make_batch())
    step = Step(weights["params"], {}, (), batch, jax.random.key(0), jnp.int32(0))
    message = "expected a method that is trained, found lpcam, .* type prototypes makes"
    with pytest.raises(UserError, match=message):
        method.loss(step)


def test_a_method_without_clusters_is_refused():
    with pytest.raises(UserError, match="expected clusters of 1 or more, found 0"):
        make("lpcam", clusters=0)
