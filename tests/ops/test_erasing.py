"""Erasing, its fills, reliable labels, dilated classifiers: against slow NumPy versions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.slow_erasing import label_by_hand, resized
from wsss_jax.models.dilated_overlay import DilatedOverlay, TapConv
from wsss_jax.ops import erasing
from wsss_jax.ops.reliable_labels import RULES, reliable_labels

RNG = np.random.default_rng(0)


def test_dilated_classifier_against_loops():
    x = RNG.normal(0, 1, (2, 5, 6, 4)).astype(np.float32)
    for dilation in (1, 2, 5):
        layer = TapConv(3, dilation)
        variables: Any = layer.init(jax.random.key(0), jnp.asarray(x))
        kernel = np.asarray(variables["params"]["kernel"])
        expected = np.zeros((2, 5, 6, 3))
        for y, z in np.ndindex(5, 6):
            for i, j in np.ndindex(3, 3):
                v, u = y + (i - 1) * dilation, z + (j - 1) * dilation
                if 0 <= v < 5 and 0 <= u < 6:
                    expected[:, y, z] += x[:, v, u] @ kernel[i, j]
        found: Any = layer.apply(variables, jnp.asarray(x))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_blur_against_loops():
    images = RNG.normal(0, 1, (2, 6, 7, 3)).astype(np.float32)
    valid = np.ones((2, 6, 7), bool)
    valid[0, :2], valid[1, :, 4:] = False, False
    expected = np.zeros_like(images)
    for b, y, x in zip(*np.nonzero(valid), strict=True):
        weights, total = 0.0, np.zeros(3)
        for v, u in zip(*np.nonzero(valid[b]), strict=True):
            weight = np.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * 1.5**2))
            weights, total = weights + weight, total + weight * images[b, v, u]
        expected[b, y, x] = total / weights
    found = erasing.gaussian_blur(jnp.asarray(images), jnp.asarray(valid), 1.5)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # One color stays one color up to the edges.
    flat = erasing.gaussian_blur(jnp.ones((2, 6, 7, 3)), jnp.asarray(valid), 3.0)
    np.testing.assert_allclose(flat, valid[..., None] * np.ones(3), atol=1e-5)


def test_fills():
    images = RNG.normal(1, 2, (2, 40, 40, 3)).astype(np.float32)
    valid = np.ones((2, 40, 40), bool)
    valid[0, :15] = False
    keys = jax.random.split(jax.random.key(0), 2)
    other = np.where(valid[..., None], images, 99).astype(np.float32)  # other padding
    for kind in erasing.FILLS:
        fill, again = (
            np.asarray(erasing.fill_colors(jnp.asarray(x), jnp.asarray(valid), kind, 2.0, keys))
            for x in (images, other)
        )
        np.testing.assert_allclose(fill, again, atol=1e-5)
        assert not fill[~valid].any()
        for b in range(2):
            mean, spread = images[b][valid[b]].mean(0), images[b][valid[b]].std(0)
            np.testing.assert_allclose(fill[b][valid[b]].mean(0), mean, atol=0.25)
            if kind == "mean":
                np.testing.assert_allclose(
                    fill[b][valid[b]], mean[None].repeat(valid[b].sum(), 0), atol=1e-5
                )
            if kind == "noise":
                np.testing.assert_allclose(fill[b][valid[b]].std(0), spread, rtol=0.1)


def test_hot_region_against_loops():
    normal = RNG.random((2, 3, 5, 4)).astype(np.float32)
    valid = np.ones((2, 9, 9), bool)
    valid[1, 5:] = False
    region = erasing.hot_region(jnp.asarray(normal), jnp.asarray(valid), 0.6)
    for b in range(2):
        np.testing.assert_array_equal(region[b], (resized(normal[b].max(0), 9) >= 0.6) & valid[b])
    assert 0 < region.sum() < region.size
    assert not erasing.hot_region(jnp.ones((2, 3, 5, 4)), jnp.asarray(valid), 1.01).any()


@pytest.mark.parametrize("rule", RULES)
def test_labels_against_loops(rule: str):
    labels = np.array([[1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0]], np.float32)
    drawn = RNG.random((2, 3, 4, 6, 6)) ** 2 * labels[..., None, None]
    normal, other = drawn.astype(np.float32)
    normal[0, :, :2] *= 0.1
    normal[1, 3] = 0  # a class that does not respond
    valid = RNG.random((3, 6, 6)) < 0.8
    found = np.asarray(
        reliable_labels(
            jnp.asarray(normal),
            jnp.asarray(other),
            jnp.asarray(labels),
            jnp.asarray(valid),
            rule,
            0.5,
            0.1,
        )
    )
    for b, y, x in np.ndindex(3, 6, 6):
        responds = (normal[b] > 0).any((1, 2)) | (labels[b] == 0)
        expected = label_by_hand(normal[b, :, y, x], other[b, :, y, x], responds, rule, 0.5, 0.1)
        assert found[b, y, x] == (expected if valid[b, y, x] else 255)
    assert len(np.unique(found)) > 3


def test_overlay_is_the_first_and_the_mean_of_the_others():
    x = jnp.asarray(RNG.normal(0, 1, (1, 5, 6, 4)), jnp.float32)
    layer = DilatedOverlay(3, (1, 2, 4))
    variables: Any = layer.init(jax.random.key(0), x, overlaid=False)
    maps = [TapConv(3, n).apply({"params": variables["params"][f"d{n}"]}, x) for n in (1, 2, 4)]
    np.testing.assert_array_equal(layer.apply(variables, x, overlaid=False), maps[0])
    expected = np.asarray(maps[0]) + (np.asarray(maps[1]) + np.asarray(maps[2])) / 2
    found: Any = layer.apply(variables, x, overlaid=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
