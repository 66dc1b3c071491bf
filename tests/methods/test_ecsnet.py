"""ECS-Net: every step against slow NumPy versions, and what must not depend on what."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.finite_differences import check_slopes
from tests.reference.golden_weights import drawn_variables
from tests.reference.slow_erasing import EPSILON, label_by_hand, max_min, resized
from tests.toys.steps import loss_function
from wsss_jax.errors import UserError
from wsss_jax.methods.base import Method
from wsss_jax.methods.ecsnet import EcsNet
from wsss_jax.models.tiny import Tiny
from wsss_jax.ops import erasing

TINY = Tiny(width=8)
CLASSES, BATCH, SIZE = 3, 4, 32
FIELDS: dict[str, Any] = dict(
    dims=(4, 6, 8), dilations=(1, 2, 9), dropout=0.0, map_stride=4, temperature=0.5, tau_bg=0.2
)


def make(**fields: Any) -> EcsNet:
    return EcsNet(num_classes=CLASSES, backbone=TINY, **{**FIELDS, **fields})


def batch_of(order: tuple[int, ...] = (0, 1, 2, 3)) -> dict[str, jax.Array]:
    image = np.random.default_rng(1).integers(0, 256, (BATCH, SIZE, SIZE, 3))
    valid = np.ones((BATCH, SIZE, SIZE), bool)
    valid[1, :9] = valid[2, :, 22:] = False  # a crop has its image anywhere
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1]], np.float32)
    picked = np.asarray(order)
    return {
        "image": jnp.asarray(image[picked], jnp.uint8),
        "valid": jnp.asarray(valid[picked]),
        "label": jnp.asarray(labels[picked]),
        "index": jnp.asarray(picked + 10),
    }


def params_of(method: EcsNet) -> Any:
    return drawn_variables(method.model(), TINY, seed=0)["params"]


def loss_of(method: EcsNet, params: Any, batch: Any, step: Any = 0) -> Any:
    return loss_function(method)(params, {}, batch, jax.random.key(0), jnp.int32(step))


def clean(maps: Any) -> np.ndarray:
    return np.asarray(maps, np.float64)


def compiled(method: EcsNet) -> Any:
    """A method, its parameters, and ((loss, aux), gradient) of parameters, batch and step."""
    function = jax.jit(jax.value_and_grad(lambda p, b, n: loss_of(method, p, b, n), has_aux=True))
    return method, params_of(method), lambda p, b, n=3: function(p, b, jnp.int32(n))


@pytest.fixture(scope="module")
def step() -> Any:
    return compiled(make(label_weight=0.5, erased_weight=2.0, label_start=3, train_maps=True))


@pytest.fixture(scope="module")
def whole() -> Any:
    """As `step`, but nothing is erased and both branches have the same head."""
    return compiled(make(erase_threshold=1.01, overlay_both=True, train_maps=True))


def test_every_term_against_loops(step: Any):
    method, params, function = step
    batch = batch_of()
    (loss, aux), gradient = function(params, batch)
    assert all(leaf.any() and jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    cam, copy, refined = (clean(aux.maps[n]) for n in ("cam", "cam_erased", "refined"))
    labels, valid = (clean(batch[n]) for n in ("label", "valid"))
    images = clean(method.normalized(batch["image"], batch["valid"]))
    # What padding is at the maps, one corner-aligned sample after the other.
    seen = np.stack([resized(v, cam.shape[1]) >= 0.5 for v in valid])

    def normalized(maps: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                [max_min(maps[b, ..., k], seen[b]) * labels[b, k] for k in range(CLASSES)]
                for b in range(BATCH)
            ]
        )

    own, erased = normalized(cam), normalized(copy)
    # The copy: the network's maps of an image that was erased by hand.
    fill = erasing.gaussian_blur(
        jnp.asarray(images, jnp.float32), batch["valid"], method.fill_sigma * SIZE
    )
    regions = np.stack([resized(own[b].max(0), SIZE) >= 0.6 for b in range(BATCH)])
    regions &= valid > 0
    assert all(0.01 < region.mean() < 0.9 for region in regions)
    by_hand = np.where(regions[..., None], fill, images).astype(np.float32)
    again: Any = jax.jit(lambda x: method.model().apply({"params": params}, x, erased=True))
    np.testing.assert_allclose(again(jnp.asarray(by_hand))["cam"], copy, atol=2e-4)

    masks = np.full(seen.shape, 255)
    for b, y, x in zip(*np.nonzero(seen), strict=True):
        masks[b, y, x] = label_by_hand(
            erased[b, :, y, x], own[b, :, y, x], labels[b] >= 0, "agree", 0.5, 0.2
        )
    found = np.asarray(aux.maps["labels"])
    np.testing.assert_array_equal(np.where(found.any(-1), found.argmax(-1), 255), masks)

    entropies: dict[bool, list[float]] = {True: [], False: []}
    for b, y, x in np.argwhere(masks != 255):
        there = [0, *(k + 1 for k in range(CLASSES) if labels[b, k])]
        logits = refined[b, y, x, there] / 0.5
        entropy = np.log(np.exp(logits).sum()) - refined[b, y, x, masks[b, y, x]] / 0.5
        entropies[bool(masks[b, y, x] > 0)].append(entropy)
    label = (np.mean(entropies[True]) + np.mean(entropies[False])) / 2
    both = np.mean(entropies[True] + entropies[False])
    assert float(aux.terms["label"]) == pytest.approx(label, rel=1e-4)
    plain = make(balanced=False)._label_loss(
        aux.maps["refined"], jnp.asarray(masks, jnp.uint8), batch["label"]
    )
    assert float(plain) == pytest.approx(both, rel=1e-4) != pytest.approx(label, rel=1e-3)

    def soft_margin(maps: np.ndarray) -> float:
        scores = maps.mean((1, 2))
        return np.mean(np.log1p(np.exp(-scores)) * labels + np.log1p(np.exp(scores)) * (1 - labels))

    assert float(aux.terms["cls"]) == pytest.approx(soft_margin(cam), rel=1e-4)
    assert float(aux.terms["cls_erased"]) == pytest.approx(soft_margin(copy), rel=1e-4)
    total = soft_margin(cam) + 2 * soft_margin(copy) + 0.5 * label
    assert float(loss) == pytest.approx(total, rel=1e-4)


def test_refined_maps_against_loops(step: Any):
    method, params, function = step
    (_, aux), _ = function(params, batch_of())
    labels, cam = clean(batch_of()["label"]), clean(aux.maps["cam"])
    images = method.normalized(batch_of()["image"], batch_of()["valid"])
    model = method.model()
    captured: Any = jax.jit(
        lambda x: model.apply(
            {"params": params}, x, capture_intermediates=lambda m, _: m.name == "f9"
        )
    )(images)[1]
    features = clean(captured["intermediates"]["f9"]["__call__"][0])
    for b in range(2):
        f = features[b].reshape(-1, features.shape[-1])
        f = f / (np.linalg.norm(f, axis=1, keepdims=True) + EPSILON)
        similar = np.maximum(f @ f.T, 0)
        flat = np.maximum(cam[b].reshape(-1, CLASSES), 0)
        flat = np.maximum(flat - EPSILON, 0) / (flat.max(0) + EPSILON) * labels[b]
        scores = np.concatenate([1 - flat.max(1, keepdims=True), flat], 1)
        expected = similar @ scores / (similar.sum(1, keepdims=True) + EPSILON)
        found = clean(aux.maps["refined"])[b].reshape(expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_gradients_by_finite_differences(step: Any, whole: Any):
    # What is erased depends on the first classifier and the backbone, in steps; and layers below
    # layer_5 make the features of the correlation, by which they are not trained.
    differences(step, (("fc8", "d2"), ("fc8", "d9"), ("f8_3",), ("f8_4",), ("f9",)))
    differences(whole, (("fc8", "d1"), ("backbone", "layer_5", "conv")))


def differences(step: Any, paths: tuple[tuple[str, ...], ...]) -> None:
    """Slopes along the gradient, with the labels held."""
    method, params, function = step
    batch = batch_of()
    (_, aux), gradient = function(params, batch)
    labels = aux.maps["labels"]
    masks = jnp.where(labels.any(-1), labels.argmax(-1), 255).astype(jnp.uint8)
    label_loss = jax.jit(lambda refined: method._label_loss(refined, masks, batch["label"]))

    def loss(changed: Any) -> float:
        aux = function(changed, batch)[0][1]
        return float(
            aux.terms["cls"]
            + method.erased_weight * aux.terms["cls_erased"]
            + method.label_weight * label_loss(aux.maps["refined"])
        )

    check_slopes(loss, params, gradient, paths)


def test_what_is_erased_and_labeled_carries_no_gradient():
    method = make(label_weight=1.0, erased_weight=0.0)
    params = params_of(method)
    gradient, aux = jax.jit(jax.grad(lambda p: loss_of(method, p, batch_of()), has_aux=True))(
        params
    )
    only_cls = jax.jit(jax.grad(lambda p: loss_of(method, p, batch_of())[1].terms["cls"]))(params)
    assert aux.terms["label"] > 0
    # Without the copy's own loss nothing of its pass is trained,
    for name in ("d2", "d9"):
        assert not gradient["fc8"][name]["kernel"].any()
    # and the image's maps learn from their classification alone.
    for one, other in zip(
        jax.tree.leaves([gradient["backbone"], gradient["fc8"]]),
        jax.tree.leaves([only_cls["backbone"], only_cls["fc8"]]),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert gradient["f9"]["kernel"].any() and not only_cls["f9"]["kernel"].any()


def test_a_threshold_above_one_erases_nothing(whole: Any):
    _, params, function = whole
    aux = function(params, batch_of())[0][1]
    # The same numbers, but for what the compiler makes of a program that is there twice.
    np.testing.assert_allclose(aux.maps["cam"], aux.maps["cam_erased"], atol=3e-6)
    assert float(aux.terms["cls"]) == pytest.approx(float(aux.terms["cls_erased"]), rel=1e-5)


def test_the_order_of_a_batch_does_not_matter():
    method = make(fill="noise")
    params = params_of(method)
    loss = jax.jit(lambda batch: loss_of(method, params, batch)[1])
    order = (2, 0, 3, 1)
    first, second = loss(batch_of()), loss(batch_of(order))
    for name, value in first.terms.items():
        assert float(second.terms[name]) == pytest.approx(float(value), rel=1e-5), name
    for name, value in first.maps.items():
        np.testing.assert_allclose(value[jnp.asarray(order)], second.maps[name], atol=1e-5)
    # Nor do the contents of the padding.
    batch = batch_of()
    filled = jnp.where(batch["valid"][..., None], batch["image"], 200)
    assert loss({**batch, "image": filled}).terms["loss"] == first.terms["loss"]


def test_absent_classes_matter_to_the_classification_alone(step: Any):
    method, params, function = step
    one = {**batch_of(), "label": jnp.tile(jnp.asarray([1.0, 0, 0]), (BATCH, 1))}
    (_, first), _ = function(params, one)
    noise = np.random.default_rng(5).normal(0, 1, (3, 3, 32, 2)).astype(np.float32)
    changed = {
        **params,
        "fc8": {
            name: {"kernel": layer["kernel"].at[..., 1:].set(noise)}
            for name, layer in params["fc8"].items()
        },
    }
    (_, second), _ = function(changed, one)
    assert first.terms["cls"] != second.terms["cls"]
    assert float(second.terms["label"]) == pytest.approx(float(first.terms["label"]), rel=1e-6)
    np.testing.assert_array_equal(first.maps["labels"], second.maps["labels"])
    # So do they at inference, where labels are not known.
    image, valid = one["image"], jnp.ones((BATCH, SIZE, SIZE), bool)
    predict = jax.jit(lambda p: method.predict({"params": p}, image, valid)["cam"][..., 0])
    np.testing.assert_allclose(predict(params), predict(changed), atol=1e-6)


def test_labels_may_begin_later(step: Any):
    _, params, function = step
    for number, weight in ((2, 0.0), (3, 0.5)):
        (value, aux), _ = function(params, batch_of(), number)
        terms = aux.terms
        expected = terms["cls"] + 2 * terms["cls_erased"] + weight * terms["label"]
        assert float(value) == pytest.approx(float(expected), rel=1e-6)


def test_mistakes_are_the_users():
    for fields, message in (
        (dict(erase_threshold=0.0), "erase_threshold above 0"),
        (dict(tau_bg=0.7), "tau_bg <= tau_fg, found 0.7 and 0.5"),
        (dict(dilations=(1, 3, 3)), "each once"),
    ):
        with pytest.raises(UserError, match=message):
            make(**fields)
    for fields, message in (
        (dict(fill="black"), "fill to be one of 'blur', 'mean', 'noise', found 'black'"),
        (dict(suppression="all"), "one of 'none', 'threshold', 'agree', 'consistent', found 'all'"),
    ):
        section = dict(name="ecsnet", backbone=dict(name="tiny"), **fields)
        with pytest.raises(UserError, match=message):
            Method.from_config(section, "method", num_classes=CLASSES)
