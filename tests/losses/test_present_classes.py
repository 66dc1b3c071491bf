"""Leaving absent classes out of a loss changes neither its value nor its gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.losses.present_classes import on_present_classes
from wsss_jax.methods.seam import Seam
from wsss_jax.models.tiny import Tiny
from wsss_jax.ops.transforms import draw_transform

CLASSES = 8


def labels_with(*counts: int) -> jax.Array:
    rng = np.random.default_rng(0)
    labels = np.zeros((len(counts), CLASSES), np.float32)
    for row, count in zip(labels, counts, strict=True):
        row[rng.permutation(CLASSES)[:count]] = 1
    return jnp.asarray(labels)


@functools.cache
def seam_losses(use_pcm: bool) -> tuple[Any, Any]:
    """SEAM's loss on the present classes and on all, compiled, each with its gradient."""
    method = Seam(num_classes=CLASSES, backbone=Tiny(), er_weight=0.7, use_pcm=use_pcm)
    still = draw_transform((), jax.random.key(0), 2)
    loss_of = functools.partial(
        method._map_loss, consistency=1.0, size=(12, 10), small_size=(6, 5), move=still
    )

    def on_present(maps: Any, labels: jax.Array):
        loss, terms = on_present_classes(loss_of, maps, labels)
        return 2 * loss, terms

    def on_all(maps: Any, labels: jax.Array):
        loss, terms = loss_of(maps, labels)
        return 2 * loss, terms

    one, other = (jax.jit(jax.value_and_grad(f, has_aux=True)) for f in (on_present, on_all))
    return one, other


@pytest.mark.parametrize("use_pcm", [True, False])
@pytest.mark.parametrize("counts", [(1, 0), (3, 2), (4, 1), (6, 6), (7, 2), (8, 3)])
def test_seams_loss_is_that_of_all_classes(counts: tuple[int, int], use_pcm: bool):
    rng = np.random.default_rng(1)
    sizes = ((6, 5), (6, 5), (3, 3), (3, 3))
    maps = tuple(jnp.asarray(rng.normal(0, 1, (2, CLASSES + 1, *s)), jnp.float32) for s in sizes)
    on_present, on_all = seam_losses(use_pcm)
    (value, terms), gradient = on_present(maps, labels_with(*counts))
    (full, full_terms), full_gradient = on_all(maps, labels_with(*counts))
    assert float(value) == pytest.approx(float(full), rel=1e-5) and value > 0
    assert terms.keys() == full_terms.keys()
    for name, term in full_terms.items():
        assert float(terms[name]) == pytest.approx(float(term), rel=1e-5, abs=1e-8), name
    for one, other in zip(gradient, full_gradient, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)
    assert any(np.any(g) for g in full_gradient)


def test_the_fewest_classes_that_hold_every_image_are_used():
    def count(maps: Any, labels: jax.Array):
        assert maps[0].shape[1] == labels.shape[1] + 1
        return (maps[0] * 0).sum() + labels.shape[1], {}

    counted = jax.jit(lambda labels: on_present_classes(count, (jnp.zeros((2, 9, 1, 1)),), labels))
    for counts, slots in (((0, 0), 3), ((1, 3), 3), ((4, 1), 6), ((6, 6), 6), ((2, 7), 8)):
        assert counted(labels_with(*counts))[0] == slots


def test_background_and_present_classes_are_passed_on():
    maps = jnp.arange(2 * 9, dtype=jnp.float32).reshape(2, 9, 1, 1)

    def weighted(maps: Any, labels: jax.Array):
        present = jnp.pad(labels, ((0, 0), (1, 0)), constant_values=1)
        return (maps[0][..., 0, 0] * present).sum(), {}

    labels = labels_with(2, 1)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda m: on_present_classes(weighted, (m,), labels)[0])
    )(maps)
    expected = np.pad(np.asarray(labels), ((0, 0), (1, 0)), constant_values=1)
    np.testing.assert_array_equal(gradient[..., 0, 0], expected)
    assert float(value) == float((np.asarray(maps)[..., 0, 0] * expected).sum())
