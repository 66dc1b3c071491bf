"""RCM + MAM: its terms against slow NumPy versions, and what must not depend on what."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from tests.reference.finite_differences import check_slopes
from tests.reference.golden_weights import drawn_variables
from tests.reference.slow_erasing import resized
from tests.reference.slow_prototypes import assigned, attended, normal, stretched, summed
from tests.toys.steps import loss_function
from wsss_jax.errors import UserError
from wsss_jax.methods.base import Method
from wsss_jax.methods.pss import Pss
from wsss_jax.models.tiny import Tiny
from wsss_jax.ops.sharding import data_mesh, global_batch
from wsss_jax.training.step import init_state, make_train_step

TINY = Tiny(width=8)
CLASSES, BATCH, SIZE = 3, 4, 32


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def make(**fields: Any) -> Pss:
    small = dict(features=6, region_stride=4, mask_scales=(0.5, 1.0), map_scales=(0.5, 1.0))
    return Pss(num_classes=CLASSES, backbone=TINY, **{**small, **fields})


def batch_of(order: tuple[int, ...] = (0, 1, 2, 3)) -> dict[str, jax.Array]:
    image = np.random.default_rng(1).integers(0, 256, (BATCH, SIZE, SIZE, 3))
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1]], np.float32)
    picked = np.asarray(order)
    return {
        "image": jnp.asarray(image[picked], jnp.uint8),
        "valid": jnp.ones((BATCH, SIZE, SIZE), bool),
        "label": jnp.asarray(labels[picked]),
        "index": jnp.arange(BATCH),
    }


@functools.cache
def params_of(seed: int = 0) -> Any:
    return drawn_variables(make().model(), TINY, seed=seed)["params"]


def loss_of(method: Pss, params: Any, batch: Any, extra: Any, step: int = 0) -> Any:
    return loss_function(method)(params, {}, batch, jax.random.key(0), jnp.int32(step), extra)


@functools.cache
def scaled_images(scale: float) -> jax.Array:
    """What the network sees of the batch, resized by hand."""
    images = make().normalized(batch_of()["image"], batch_of()["valid"])
    planes = np.moveaxis(np.asarray(images), -1, 1).reshape(-1, SIZE, SIZE)
    size = round(SIZE * scale)
    small = np.stack([resized(plane, size) for plane in planes]).reshape(BATCH, 3, size, size)
    return jnp.asarray(np.moveaxis(small, 1, -1), jnp.float32)


@jax.jit
def network(params: Any, images: jax.Array) -> dict[str, jax.Array]:
    output: Any = make().model().apply({"params": params}, images)
    return output


ABLATIONS: dict[str, dict[str, Any]] = {
    "published": {},
    "memory, plain mean, shared weights": dict(memory=2, attention=False, decay=0.0),
    "RCM alone of the batch, no background": dict(
        mam_weight=0.0, prototypes="batch_mean", foreground_only=True
    ),
}
SINGLE: dict[str, dict[str, Any]] = {
    "RCM alone": dict(mam_weight=0.0),
    "MAM alone": dict(rcm_weight=0.0),
    "plain mean": dict(attention=False),
    "shared weights": dict(decay=0.0),
    "no background": dict(foreground_only=True),
    "batch mean": dict(prototypes="batch_mean"),
    "memory": dict(memory=2),
}


@pytest.mark.parametrize(
    "ablation", [*ABLATIONS, *(pytest.param(name, marks=pytest.mark.slow) for name in SINGLE)]
)
def test_the_whole_loss_from_the_networks_outputs(ablation: str, rng: np.random.Generator):
    method = make(
        **{**dict(mask_scales=(0.5, 1.0, 1.5), mam_weight=2.0), **(ABLATIONS | SINGLE)[ablation]}
    )
    params, batch = params_of(), batch_of()
    extra = method.init_extra(params_of(seed=1))
    queue = normal(rng.normal(0, 1, (CLASSES + 1, 2, 6)))
    if method.memory:
        extra["queue"] = jnp.asarray(queue, jnp.float32)
    found, aux = jax.jit(lambda p, e: loss_of(method, p, batch, e))(params, extra)

    labels = np.asarray(batch["label"], np.float64)

    def look(weights: Any, scale: float) -> tuple[np.ndarray, np.ndarray]:
        output = network(weights, scaled_images(scale))
        raw, features = (
            np.stack([[stretched(p, 8) for p in np.moveaxis(one, -1, 0)] for one in output[name]])
            for name in ("cam", "features")
        )
        return np.maximum(raw, 0) * labels[..., None, None], np.moveaxis(features, 1, -1)

    support = extra["ema_teacher"] if method.decay else params
    seen = {scale: look(support, scale) for scale in method.mask_scales}
    regions = assigned(np.sum([maps for maps, _ in seen.values()], 0), 0.3)
    assert len(np.unique(regions)) >= 3
    np.testing.assert_array_equal(np.asarray(aux.maps["regions"]).argmax(-1), regions)

    own = summed(seen[1.0][1], assigned(seen[1.0][0], 0.3), CLASSES + 1)
    contrast = np.zeros(own.shape)
    for b, k in np.ndindex(BATCH, CLASSES + 1):
        others = [j for j in range(BATCH) if j != b or method.prototypes == "batch_mean"]
        contrast[b, k] = normal((queue[k] if method.memory else own[others, k]).sum(0))
    similar = np.einsum("bhwd,bnd->bhwn", normal(look(params, 1.0)[1]), contrast) / 0.5
    rcm = []
    for index in np.ndindex(*regions.shape):
        first = int(method.foreground_only)
        if regions[index] >= first:
            logits = similar[index][first:]
            rcm.append(np.log(np.exp(logits).sum()) - logits[regions[index] - first])
    everywhere = [maps[: BATCH // 2] for maps, _ in seen.values()]
    mam = 0.0
    for scale in method.map_scales:
        maps = look(params, scale)[0][: BATCH // 2]
        mam += np.abs(maps - attended(maps, everywhere, method.attention)).mean()

    scores = np.asarray(network(params, scaled_images(1.0))["cam"], np.float64).mean((1, 2))
    cls = np.mean(np.log1p(np.exp(-scores)) * labels + np.log1p(np.exp(scores)) * (1 - labels))
    expected = {"cls": cls, "rcm": np.mean(rcm), "mam": mam}
    weights = {"cls": 1.0, "rcm": method.rcm_weight, "mam": method.mam_weight}
    assert set(aux.terms) == {"loss"} | {name for name in expected if weights[name]}
    for name in set(aux.terms) - {"loss"}:
        assert float(aux.terms[name]) == pytest.approx(expected[name], rel=2e-4), name
    total = sum(weights[name] * expected[name] for name in expected)
    assert float(found) == pytest.approx(total, rel=2e-4)


def test_gradient_by_finite_differences():
    # Without attention no target depends on the network, so that a slope is a slope.
    method = make(attention=False, mam_weight=2.0)
    params = params_of()
    extra = method.init_extra(params_of(seed=1))
    loss = jax.jit(lambda p: loss_of(method, p, batch_of(), extra)[0])
    gradient = jax.jit(jax.grad(loss))(params)
    paths = (("fc8",), ("fc9",), ("backbone", "layer_3", "conv"))
    check_slopes(lambda p: float(loss(p)), params, gradient, paths)


@pytest.mark.parametrize("foreground_only", [False, True])
def test_regional_contrast_against_loops(foreground_only: bool, rng: np.random.Generator):
    features = rng.normal(0, 1, (2, 3, 4, 6)).astype(np.float32)
    prototypes = normal(rng.normal(0, 1, (2, 4, 6)).astype(np.float32))
    prototypes[1, 3] = 0
    mask = rng.integers(0, 4, (2, 3, 4))
    method = make(foreground_only=foreground_only)
    losses = []
    for b in range(2):
        for pixel, region in zip(features[b].reshape(-1, 6), mask[b].ravel(), strict=True):
            logits = prototypes[b] @ normal(pixel) * 2
            if foreground_only:
                if region == 0:
                    continue
                logits, region = logits[1:], region - 1
            losses.append(np.log(np.exp(logits).sum()) - logits[region])
    arrays = jnp.asarray(prototypes), jnp.asarray(mask)
    found = method._regional_contrast(jnp.asarray(features), *arrays)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)
    check_grads(
        lambda f: method._regional_contrast(jnp.asarray(f), *arrays),
        (jnp.asarray(features),),
        order=1,
        modes=["rev"],
        rtol=2e-2,
    )


@pytest.mark.parametrize("attention", [True, False])
def test_attentive_loss_against_loops(attention: bool, rng: np.random.Generator):
    own = [np.maximum(rng.normal(0, 1, (2, 3, 4, 5)), 0).astype(np.float32) for _ in range(2)]
    support = [np.maximum(rng.normal(0, 1, (2, 3, 4, 5)), 0).astype(np.float32) for _ in range(3)]
    for maps in (*own, *support):
        maps[1, 2] = 0  # an absent class
    targets = [attended(one, support, attention) for one in own]
    total = sum(np.abs(one - target).mean() for one, target in zip(own, targets, strict=True))
    method = make(attention=attention)
    maps = [jnp.asarray(m) for m in own], [jnp.asarray(m) for m in support]
    assert float(method._attentive(*maps)) == pytest.approx(total, rel=1e-5)
    # Targets are constants, their weights too: the gradient is the sign of the difference.
    gradient = jax.grad(lambda m: method._attentive([m], maps[1]))(maps[0][0])
    apart = own[0] - targets[0]
    slopes = np.asarray(gradient) * own[0].size
    np.testing.assert_allclose(slopes[apart != 0], np.sign(apart[apart != 0]), rtol=1e-5)


def test_loss_is_the_weighted_sum_and_nothing_reaches_the_teacher():
    method = make(rcm_weight=0.5, mam_weight=2.0, mam_start=3, memory=2)
    params = params_of()
    extra = method.init_extra(params)
    step = jax.jit(
        jax.value_and_grad(
            lambda p, e, n: loss_of(method, p, batch_of(), e, n), argnums=(0, 1), has_aux=True
        )
    )
    for number, weight in ((2, 0.0), (3, 2.0)):
        (loss, aux), (gradient, to_extra) = step(params, extra, number)
        terms = aux.terms
        expected = terms["cls"] + 0.5 * terms["rcm"] + weight * terms["mam"]
        assert float(loss) == pytest.approx(float(expected), rel=1e-6) and terms["mam"] > 0
        assert not any(leaf.any() for leaf in jax.tree.leaves(to_extra["ema_teacher"]))
        assert all(leaf.any() for leaf in jax.tree.leaves(gradient))
    assert aux.maps["regions"].shape == (BATCH, 8, 8, CLASSES + 1)
    assert aux.extra["queue"].any()


@pytest.mark.parametrize("memory", [0, 2])
def test_the_order_of_a_batch_does_not_matter(memory: int, rng: np.random.Generator):
    method = make(memory=memory)
    params = params_of()
    extra = method.init_extra(params)
    if memory:
        extra["queue"] = jnp.asarray(rng.normal(0, 1, (CLASSES + 1, 2, 6)), jnp.float32)
    loss = jax.jit(lambda batch: loss_of(method, params, batch, extra)[1])
    first = second = loss(batch_of())
    # L_MAM looks at the first half of the batch, so only an order within the halves leaves it.
    for order, same in (((1, 0, 3, 2), "cls rcm mam"), ((2, 0, 3, 1), "cls rcm")):
        second = loss(batch_of(order))
        for name in same.split():
            value = float(first.terms[name])
            assert float(second.terms[name]) == pytest.approx(value, rel=1e-5), name
        regions = first.maps["regions"][jnp.asarray(order)]
        np.testing.assert_array_equal(regions, second.maps["regions"])
    assert float(second.terms["mam"]) != pytest.approx(float(first.terms["mam"]), rel=1e-3)


def test_absent_classes_matter_to_the_classification_alone(rng: np.random.Generator):
    method = make()
    params, support = params_of(), params_of(seed=1)
    batch = {**batch_of(), "label": batch_of()["label"].at[:, 2].set(0)}
    noise = jnp.asarray(rng.normal(0, 1, (6,)), jnp.float32)

    def changed(weights: Any) -> Any:
        kernel = weights["fc9"]["kernel"].at[..., 2].set(noise)
        return {**weights, "fc9": {"kernel": kernel}}

    loss = jax.jit(lambda p, s: loss_of(method, p, batch, {"ema_teacher": s})[1])
    first, second = loss(params, support), loss(changed(params), changed(support))
    assert first.terms["cls"] != second.terms["cls"]
    for name in ("rcm", "mam"):
        assert float(second.terms[name]) == pytest.approx(float(first.terms[name]), rel=1e-6)
    np.testing.assert_array_equal(first.maps["regions"], second.maps["regions"])


def test_the_ema_teacher_follows_its_closed_form():
    method = make(decay=0.9)
    optimizer, mesh = optax.sgd(0.01), data_mesh(jax.devices()[:1])
    params = params_of()
    state = init_state(method, optimizer, params, {}, 0, mesh)
    step = make_train_step(method, optimizer, params, mesh)
    batch = global_batch(jax.tree.map(np.asarray, batch_of()), mesh)
    expected = jax.tree.map(lambda leaf: 0.9**4 * np.asarray(leaf, np.float64), params)
    for n in range(1, 5):
        state, _ = step(state, batch)
        now = jax.device_get(state.params)
        expected = jax.tree.map(lambda e, leaf, n=n: e + 0.1 * 0.9 ** (4 - n) * leaf, expected, now)
    jax.tree.map(
        lambda found, e: np.testing.assert_allclose(found, e, rtol=1e-4, atol=1e-6),
        jax.device_get(state.extra["ema_teacher"]),
        expected,
    )
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), now, state.extra["ema_teacher"])
    assert all(jax.tree.leaves(moved))
    assert make(decay=0.0).init_extra({}) == {}


def test_mistakes_are_the_users():
    section = dict(name="pss", backbone=dict(name="tiny"), prototypes="mean")
    with pytest.raises(UserError, match="'leave_one_out', 'batch_mean', found 'mean'"):
        Method.from_config(section, "method")
    with pytest.raises(UserError, match=r"1\.0 in mask_scales"):
        make(mask_scales=(0.5, 2.0))
