"""Winners of a pixel are compared exactly, whatever a compiler makes of the maps before them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.reference.golden_weights import drawn_variables
from tests.toys.compiler import HAS_EMITTER_SWITCH
from tests.toys.steps import loss_function
from wsss_jax.methods.seam import Seam
from wsss_jax.models.tiny import Tiny
from wsss_jax.ops.max_norm import winner_only, with_background
from wsss_jax.ops.pixel_correlation import pixel_correlation, pixel_correlation_input

E = np.float32(1e-5)
COMPILERS = [
    {"xla_backend_optimization_level": level}
    | ({"xla_cpu_use_fusion_emitters": emitters} if HAS_EMITTER_SWITCH else {})
    for level in (0, 3)
    for emitters in ((False, True) if HAS_EMITTER_SWITCH else (True,))
]


def compiled(function: Callable, *arguments: Any, options: dict[str, Any]) -> Callable:
    return jax.jit(function).lower(*arguments).compile(compiler_options=options)


def slow_winners(maps: np.ndarray, tolerance: float = 0) -> np.ndarray:
    """[b, c1, h, w], one pixel at a time; all that equal the maximum stay."""
    out = maps.copy()
    for image, row, column in np.ndindex(maps.shape[0], *maps.shape[2:]):
        best = max(maps[image, k, row, column] for k in range(1, maps.shape[1]))
        for k in range(1, maps.shape[1]):
            if maps[image, k, row, column] < best * np.float32(1 - tolerance):
                out[image, k, row, column] = 0
    return out


def slow_correlation_input(cam: np.ndarray, tolerance: float = 0) -> np.ndarray:
    """[b, h, w, c1] in float32."""
    planes = np.maximum(np.moveaxis(cam, -1, 1)[:, 1:], 0)
    planes = np.maximum(planes - E, 0) / (planes.max((2, 3), keepdims=True) + E)
    maps = np.concatenate([1 - planes.max(1, keepdims=True), planes], 1)
    return np.moveaxis(slow_winners(maps, tolerance), 1, -1)


def slow_correlation(features: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """[h, w, d] and [h, w, k] to [h, w, k] in float64."""
    f = features.reshape(-1, features.shape[-1]).astype(float)
    f = f / (np.sqrt((f * f).sum(1, keepdims=True)) + E)
    affinity = np.maximum(f @ f.T, 0)
    affinity = affinity / (affinity.sum(0, keepdims=True) + E)
    return (affinity.T @ scores.reshape(len(f), -1)).reshape(scores.shape)


# Few values, so that many are equal, and neighbors that differ in the last digit alone.
CLOSE = [0.0, 0.25, 0.5, *(float(np.nextafter(np.float32(0.5), d)) for d in (0, 1)), 1 - 4e-7, 1.0]
tied_maps = hnp.arrays(np.float32, (2, 5, 3, 4), elements=st.sampled_from(CLOSE))
numbers = st.floats(-2, 2, width=32, allow_subnormal=False)  # which devices take for zero
any_maps = hnp.arrays(np.float32, (2, 5, 3, 4), elements=numbers)


@settings(deadline=None, max_examples=200)
@given(tied_maps | any_maps)
def test_equals_slow_version(maps):
    found = np.asarray(jax.jit(winner_only)(maps))
    np.testing.assert_array_equal(found, slow_winners(maps))
    best = maps[:, 1:].max(1)
    assert ((found[:, 1:] == best[:, None]).any(1)).all()


@pytest.mark.parametrize("options", COMPILERS)
def test_some_class_stays_when_the_maps_are_computed_on_the_way(options):
    """Sums of products, which a compiler rounds in another way each time it computes them anew."""

    def kept(x, y):
        foreground = x * y + x[:, ::-1] * 0.3 + jnp.roll(x, 1, 2) * 0.7 + 4
        return winner_only(with_background(foreground))

    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 6, 40, 48)).astype(np.float32).clip(-1.5, 1.5)
    y = rng.random((8, 6, 1, 1)).astype(np.float32)
    maps = np.asarray(compiled(kept, x, y, options=options)(x, y))
    np.testing.assert_allclose(maps[:, 1:].max(1), 1 - maps[:, 0], rtol=1e-5)
    assert (np.count_nonzero(maps[:, 1:], axis=1) == 1).all()


# The first is that of most tests, the last that of users.
ENDS = [
    options
    if options in (COMPILERS[0], COMPILERS[-1])
    else pytest.param(options, marks=pytest.mark.slow)
    for options in COMPILERS
]


@pytest.mark.parametrize("options", ENDS)
def test_some_class_stays_in_the_compiled_loss(options, monkeypatch):
    """In the loss with its gradient, for the correlation's input and for the supervision."""
    seen: list[tuple[int, int]] = []

    def watched(maps):
        kept = winner_only(maps)
        lost = jnp.abs(1 - kept[:, 0] - kept[:, 1:].max(1)) > E
        jax.debug.callback(lambda n: seen.append((int(n), lost.size)), lost.sum())
        return kept

    monkeypatch.setattr("wsss_jax.methods.seam.winner_only", watched)
    monkeypatch.setattr("wsss_jax.ops.pixel_correlation.winner_only", watched)
    method = Seam(num_classes=5, backbone=Tiny(width=8), dims=(4, 6, 8))
    params = drawn_variables(method.model(), method.backbone, seed=0)["params"]
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (3, 64, 72, 3)), jnp.uint8),
        "valid": jnp.ones((3, 64, 72), bool),
        "label": jnp.asarray([[1.0, 1, 0, 1, 0], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
        "index": jnp.arange(3),
    }
    arguments = params, {}, batch, jax.random.key(0), jnp.int32(0)
    step = jax.value_and_grad(loss_function(method), has_aux=True)
    (loss, _), gradient = compiled(step, *arguments, options=options)(*arguments)
    jax.effects_barrier()
    assert jnp.isfinite(loss)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert len(seen) == 4 and all(pixels for _, pixels in seen)  # two inputs, two supervisions
    assert sum(lost for lost, _ in seen) == 0


def test_close_maxima_at_one_pixel():
    """Both classes peak at pixel 0, where their maps differ by less than a millionth.

    With a tolerance of a millionth both would stay, and the lesser class's revised map would be
    wrong by 17 % where the pixels resemble each other.
    """
    cam = np.zeros((1, 2, 4, 3), np.float32)
    cam[0, 0, 0, 1:] = 5.0, 6.0
    cam[0, :, 1:, 1] = 4.0
    cam[0, 1, 0, 1] = 4.0
    cam[0, 0, 3, 1:] = 0.0, 3.0
    features = np.random.default_rng(0).uniform(0.8, 1.2, (1, 2, 4, 6)).astype(np.float32)

    scores = np.asarray(jax.jit(pixel_correlation_input)(cam))
    np.testing.assert_array_equal(scores[0, 0, 0, 1], 0)
    assert scores[0, 0, 0, 2] > 0.999
    np.testing.assert_allclose(scores, slow_correlation_input(cam), rtol=1e-6)
    revised = np.asarray(pixel_correlation(jnp.asarray(features), jnp.asarray(scores)))[0]
    expected = slow_correlation(features[0], slow_correlation_input(cam)[0])
    np.testing.assert_allclose(revised, expected, rtol=1e-4)
    tolerant = slow_correlation(features[0], slow_correlation_input(cam, 1e-6)[0])
    assert np.abs(tolerant / expected - 1)[..., 1].max() > 0.17
    np.testing.assert_allclose(tolerant[..., 2], expected[..., 2])


def slow_min_max_norm(maps: np.ndarray) -> np.ndarray:
    maps = np.maximum(maps, 0)
    low, high = maps.min((2, 3), keepdims=True), maps.max((2, 3), keepdims=True)
    return np.maximum(maps - low - E, 0) / (high - low + E)


def slow_resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, corners aligned."""
    for axis, length in zip((2, 3), size, strict=True):
        position = np.linspace(0, maps.shape[axis] - 1, length)
        low = np.minimum(np.floor(position).astype(int), maps.shape[axis] - 2)
        weight = (position - low).reshape([-1 if a == axis else 1 for a in range(4)])
        maps = maps.take(low, axis) * (1 - weight) + maps.take(low + 1, axis) * weight
    return maps.astype(np.float32)


def test_golden_cross_supervision(shared: Path):
    """The reference's L_ECR follows from its maps when winners are compared exactly."""
    with np.load(shared / "golden" / "seam.npz") as file:
        golden = dict(file)
    losses = json.loads(str(golden["losses"]))
    present = np.pad(golden["labels"], ((0, 0), (1, 0)), constant_values=1)[:, :, None, None]
    size = golden["cam2"].shape[1:3]
    p1, q1, p2, q2 = (
        slow_resize(slow_min_max_norm(np.moveaxis(golden[name], -1, 1)), size) * present
        for name in ("cam1", "cam_rv1", "cam2", "cam_rv2")
    )
    for name, p, q in (("ecr1", p2, q1), ("ecr2", p1, q2)):
        maps = np.concatenate([1 - p[:, 1:].max(1, keepdims=True), p[:, 1:]], 1)
        target = np.asarray(jax.jit(winner_only)(maps))
        np.testing.assert_array_equal(target, slow_winners(maps))
        count = int(maps[0].size * 0.2)
        hardest = np.sort(np.abs(target - q).reshape(len(q), -1))[:, -count:]
        assert hardest.mean() == pytest.approx(losses[name], rel=1e-4)
