"""RCM + MAM: its terms against slow NumPy versions, and what must not depend on what."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_weights import drawn_variables
from jax.test_util import check_grads

from wsss_jax.errors import UserError
from wsss_jax.methods.pss import Pss
from wsss_jax.models import tiny
from wsss_jax.ops import prototypes as proto

TINY = {"name": "tiny", "width": 8}
CLASSES, BATCH, SIZE = 3, 4, 32
RNG = np.random.default_rng(0)


def make(**fields: Any) -> Pss:
    small = dict(features=6, region_stride=4, mask_scales=(0.5, 1.0), map_scales=(0.5, 1.0))
    return Pss(CLASSES, TINY, **{**small, **fields})


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


def params_of(method: Pss) -> Any:
    return drawn_variables(method.model(), tiny, seed=0)["params"]


def loss_of(method: Pss, params: Any, batch: Any, extra: Any, step: int = 0) -> Any:
    return method.loss(params, {}, batch, jax.random.key(0), jnp.int32(step), extra)


def normal(v: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(v, axis=-1, keepdims=True)
    return np.divide(v, length, out=np.zeros_like(v), where=length > 1e-6)


def test_assignment_by_hand():
    cam = np.zeros((1, 2, 1, 4), np.float32)
    cam[0, 0, 0] = [10, 2, 3, -5]
    cam[0, 1, 0] = [0.9, 0.4, 0, 0]
    both, first = jnp.ones((1, 2)), jnp.asarray([[1.0, 0.0]])
    # Divided by their maxima: 1, .2, .3, 0 and 1, .44, 0, 0; the lower class wins a tie.
    assert proto.assign(jnp.asarray(cam), both, 0.25)[0, 0].tolist() == [1, 2, 1, 0]
    assert proto.assign(jnp.asarray(cam), first, 0.25)[0, 0].tolist() == [1, 0, 1, 0]


def test_prototypes_against_loops():
    features = RNG.normal(0, 1, (3, 4, 5, 6)).astype(np.float32)
    classes = RNG.integers(0, 3, (3, 4, 5))
    classes[1][classes[1] == 2] = 0
    found, present = proto.class_prototypes(jnp.asarray(features), jnp.asarray(classes), 4)
    expected, there = np.zeros((3, 4, 6), np.float32), np.zeros((3, 4), bool)
    for b in range(3):
        for k in range(4):
            members = normal(features[b][classes[b] == k])
            if len(members):
                expected[b, k], there[b, k] = normal(members.sum(0)), True
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(present, there)
    assert not there[1, 2] and not there[:, 3].any()

    others = np.zeros_like(expected)
    for b in range(3):
        for k in range(4):
            rest = [expected[j, k] for j in range(3) if j != b and there[j, k]]
            if rest:
                others[b, k] = normal(np.mean(rest, 0))
    np.testing.assert_allclose(proto.leave_one_out(found, present), others, atol=1e-5)
    mean = normal((expected * there[..., None]).sum(0))
    np.testing.assert_allclose(proto.batch_mean(found, present)[1], mean, atol=1e-6)


def test_an_images_own_prototype_never_enters_its_contrast():
    values = normal(RNG.normal(0, 1, (4, 3, 5)).astype(np.float32))
    present = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]], bool)
    contrast = np.asarray(proto.leave_one_out(jnp.asarray(values), jnp.asarray(present)))
    for i in range(4):
        other = values.copy()
        other[i] = normal(RNG.normal(0, 1, (3, 5)))
        changed = np.asarray(proto.leave_one_out(jnp.asarray(other), jnp.asarray(present)))
        np.testing.assert_allclose(changed[i], contrast[i], atol=2e-6)
    assert not contrast[2, 2].any()  # nobody else has the class
    # What is absent may hold anything.
    noise = np.where(present[..., None], values, RNG.normal(0, 9, values.shape)).astype(np.float32)
    np.testing.assert_array_equal(
        proto.leave_one_out(jnp.asarray(noise), jnp.asarray(present)), contrast
    )


def test_memory_keeps_the_newest_of_each_class():
    queue = jnp.zeros((2, 3, 4))
    said: list[list[np.ndarray]] = [[], []]
    for _ in range(6):
        values = normal(RNG.normal(0, 1, (3, 2, 4)).astype(np.float32))
        present = RNG.random((3, 2)) < 0.6
        queue = proto.remember(queue, jnp.asarray(values), jnp.asarray(present))
        for b in range(3):
            for k in range(2):
                if present[b, k]:
                    said[k].insert(0, values[b, k])
    for k in range(2):
        assert len(said[k]) > 3
        np.testing.assert_array_equal(queue[k], np.stack(said[k][:3]))
        np.testing.assert_allclose(
            proto.recalled(queue)[k], normal(np.sum(said[k][:3], 0)), atol=1e-6
        )


@pytest.mark.parametrize("foreground_only", [False, True])
def test_regional_contrast_against_loops(foreground_only: bool):
    features = RNG.normal(0, 1, (2, 3, 4, 6)).astype(np.float32)
    prototypes = normal(RNG.normal(0, 1, (2, 4, 6)).astype(np.float32))
    prototypes[1, 3] = 0
    mask = RNG.integers(0, 4, (2, 3, 4))
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
def test_attentive_loss_against_loops(attention: bool):
    own = [np.maximum(RNG.normal(0, 1, (2, 3, 4, 5)), 0).astype(np.float32) for _ in range(2)]
    support = [np.maximum(RNG.normal(0, 1, (2, 3, 4, 5)), 0).astype(np.float32) for _ in range(3)]
    for maps in (*own, *support):
        maps[1, 2] = 0  # an absent class
    total = 0.0
    for one in own:
        for b in range(2):
            for k in range(3):
                target = np.zeros((4, 5), np.float32)
                for other in support:
                    a, c = one[b, k].ravel(), other[b, k].ravel()
                    cosine = normal(a) @ normal(c)
                    target += (2 - cosine if attention else 1) * other[b, k] / 3
                total += np.abs(one[b, k] - target).sum() / one.size
    method = make(attention=attention)
    maps = [jnp.asarray(m) for m in own], [jnp.asarray(m) for m in support]
    assert float(method._attentive(*maps)) == pytest.approx(total, rel=1e-5)
    # Targets are constants: the gradient is the sign of the difference alone.
    gradient = jax.grad(lambda m: method._attentive([m], maps[1]))(maps[0][0])
    assert set(np.unique(np.abs(np.asarray(gradient)) * own[0].size).round(3)) <= {0.0, 1.0}


def test_loss_is_the_weighted_sum_and_nothing_reaches_the_support():
    method = make(rcm_weight=0.5, mam_weight=2.0, mam_start=3, memory=2)
    params = params_of(method)
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
        assert not any(leaf.any() for leaf in jax.tree.leaves(to_extra["support"]))
        assert all(leaf.any() for leaf in jax.tree.leaves(gradient))
    assert aux.maps["regions"].shape == (BATCH, 8, 8, CLASSES + 1)
    assert aux.extra["queue"].any()


def test_the_order_of_a_batch_does_not_matter_to_the_contrast():
    method = make(mam_weight=0.0)
    params = params_of(method)
    extra = method.init_extra(params)
    loss = jax.jit(lambda batch: loss_of(method, params, batch, extra))
    first, second = loss(batch_of())[1], loss(batch_of((2, 0, 3, 1)))[1]
    for name, value in first.terms.items():
        assert float(second.terms[name]) == pytest.approx(float(value), rel=1e-5), name
    np.testing.assert_array_equal(
        first.maps["regions"][jnp.asarray([2, 0, 3, 1])], second.maps["regions"]
    )


def test_support_follows_its_closed_form():
    method = make(decay=0.9)
    extra = method.init_extra({"w": jnp.asarray([1.0, 2.0])})
    values = [jnp.asarray([n, -2.0 * n]) for n in range(1, 6)]
    for value in values:
        extra = method.after_step(extra, {"w": value})
    expected = 0.9**5 * np.array([1.0, 2.0]) + sum(
        0.1 * 0.9 ** (5 - n) * np.asarray(v) for n, v in enumerate(values, 1)
    )
    np.testing.assert_allclose(extra["support"]["w"], expected, rtol=1e-5)
    assert make(decay=0.0).init_extra({}) == {}


def test_mistakes_are_the_users():
    with pytest.raises(UserError, match="leave_one_out, batch_mean"):
        make(prototypes="mean")
    with pytest.raises(UserError, match=r"1\.0 in mask_scales"):
        make(mask_scales=(0.5, 2.0))
