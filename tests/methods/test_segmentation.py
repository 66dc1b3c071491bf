"""Segmentation networks: padding, batch norm, scales and labels in the loss, averages, mistakes."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_every_backbone import few_groups
from tests.reference.golden_weights import drawn_variables
from tests.toys.steps import loss_function
from wsss_jax import losses
from wsss_jax.errors import UserError
from wsss_jax.methods.base import Method, Step
from wsss_jax.methods.segmentation import Segmentation
from wsss_jax.methods.variables import init_variables
from wsss_jax.models import mobilenet_v2
from wsss_jax.models.heads.base import Head
from wsss_jax.models.layers import BatchNorm
from wsss_jax.models.mobilenet_v2 import MobileNetV2
from wsss_jax.models.tiny import Tiny
from wsss_jax.settings import read

TINY = Tiny(width=8)
HEADS: dict[str, dict[str, Any]] = {
    "large_fov": dict(features=12, dilation=2),
    "aspp": dict(dilations=(2, 3)),
    "v3plus": dict(features=12, low_features=6, dilations=(1, 2)),
}


def small(head: str) -> Head:
    return read(Head, dict(name=head, **HEADS[head]))


def make(head: str, **fields: Any) -> Segmentation:
    return Segmentation(num_classes=3, backbone=TINY, head=small(head), **fields)


def batch_of(size: int = 40) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    valid = np.ones((2, size, size), bool)
    valid[1, 30:] = False
    masks = np.where(valid, rng.integers(0, 4, valid.shape), 255)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (2, size, size, 3)), jnp.uint8),
        "valid": jnp.asarray(valid),
        "label": jnp.ones((2, 3)),
        "index": jnp.arange(2),
        "segmentation": jnp.asarray(masks, jnp.uint8),
    }


@pytest.mark.parametrize("presence", [0.0, 1.0])
@pytest.mark.parametrize("head", HEADS)
def test_prediction_under_padding(head: str, presence: float):
    method = make(head, presence_weight=presence)
    variables = drawn_variables(method.model(), TINY, seed=0)
    image = jnp.asarray(np.random.default_rng(1).integers(0, 256, (1, 64, 48, 3)), jnp.uint8)
    valid = np.zeros((1, 64, 48), bool)
    valid[:, :41, :30] = True
    predict = jax.jit(method.predict)
    padded = predict(variables, image, jnp.asarray(valid))["logits"]
    alone = predict(variables, image[:, :41, :30], jnp.ones((1, 41, 30), bool))["logits"]
    height, width = (11, 8) if head == "v3plus" else (6, 4)
    assert alone.shape == (1, height, width, 4)
    np.testing.assert_allclose(padded[:, :height, :width], alone, rtol=1e-4, atol=1e-4)


def test_scales_of_the_loss_are_averaged_with_their_maximum():
    batch = batch_of()
    method = make("aspp")
    variables = drawn_variables(method.model(), TINY, seed=0)

    def loss_of(method: Segmentation) -> float:
        loss, _ = jax.jit(loss_function(method))(
            variables["params"], {}, batch, jax.random.key(0), jnp.int32(0)
        )
        return float(loss)

    twice = make("aspp", loss_scales=(1.0,))  # the same logits again: and their maximum
    assert loss_of(twice) == pytest.approx(loss_of(method), rel=1e-5)
    assert loss_of(make("aspp", loss_scales=(0.5,))) != pytest.approx(loss_of(method), rel=1e-3)


def test_labels_teach_which_classes_an_image_has():
    batch = batch_of() | {"label": jnp.asarray([[1, 0, 0], [0, 1, 1]], jnp.float32)}
    method, plain = make("aspp", presence_weight=0.3), make("aspp")
    variables = drawn_variables(method.model(), TINY, seed=0)
    params = variables["params"]

    def loss_of(method: Segmentation, params: Any, labels: jax.Array = batch["label"]) -> Any:
        batch_ = batch | {"label": labels}
        return loss_function(method)(params, {}, batch_, jax.random.key(0), jnp.int32(0))

    compiled = jax.jit(loss_of, static_argnums=0)
    loss, aux = compiled(method, params)
    without, _ = compiled(plain, {k: v for k, v in params.items() if k != "presence"})
    pixels = method.normalized(batch["image"], batch["valid"])
    found: Any = jax.jit(method.model().apply)(variables, pixels)
    chance = 1 / (1 + np.exp(-np.asarray(found["presence"], np.float64)))
    entropy = -np.mean(np.log(np.where(batch["label"] > 0, chance, 1 - chance)))
    assert float(aux.terms["presence"]) == pytest.approx(entropy, rel=1e-5)
    assert float(aux.terms["ce"]) == pytest.approx(float(without), rel=1e-6)
    assert float(loss) == pytest.approx(float(without) + 0.3 * entropy, rel=1e-5)
    # Other labels, other gradients: of the new head and of the backbone, not of the pixels' head.
    gradient = jax.jit(jax.grad(lambda p, labels: loss_of(method, p, labels)[0]))
    first, second = (gradient(params, labels) for labels in (batch["label"], 1 - batch["label"]))
    for part, differs in (("presence", True), ("backbone", True), ("head", False)):
        changes = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), first[part], second[part])
        assert (max(map(float, jax.tree.leaves(changes))) > 1e-6) == differs, part


def test_presence_multiplies_the_probabilities_of_the_pixels():
    method, batch = make("large_fov", presence_weight=1.0), batch_of()
    variables = drawn_variables(method.model(), TINY, seed=0)
    images, valid = batch["image"], batch["valid"]
    found: Any = jax.jit(method.model().apply)(variables, method.normalized(images, valid), valid)
    pixels = np.exp(np.asarray(found["logits"], np.float64))
    chance = 1 / (1 + np.exp(-np.asarray(found["presence"], np.float64)))
    pixels[..., 1:] *= (chance / chance.max(1, keepdims=True))[:, None, None]
    logits = jax.jit(method.predict)(variables, images, valid)["logits"]
    np.testing.assert_allclose(
        jax.nn.softmax(logits), pixels / pixels.sum(-1, keepdims=True), rtol=1e-4, atol=1e-6
    )


def test_balanced_cross_entropy_weighs_background_and_foreground_alike():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.standard_normal((2, 5, 6, 4)), jnp.float32)
    masks = rng.choice([0, 0, 0, 0, 1, 2, 255], (2, 5, 6)).astype(np.uint8)
    log_probability = np.asarray(jax.nn.log_softmax(logits))
    picked = np.take_along_axis(
        log_probability, np.where(masks == 255, 0, masks)[..., None].astype(int), -1
    )[..., 0]
    expected = (-picked[masks == 0].mean() - picked[(masks > 0) & (masks < 255)].mean()) / 2
    assert float(losses.balanced_cross_entropy(logits, jnp.asarray(masks))) == pytest.approx(
        expected, rel=1e-5
    )
    assert float(losses.balanced_cross_entropy(logits, jnp.full((2, 5, 6), 255, np.uint8))) == 0


def test_the_ema_teacher_follows_its_closed_form():
    method = make("large_fov", ema=0.9)
    params = {"a": jnp.asarray([1.0, 2.0])}
    extra = method.init_extra(params)
    values = [jnp.asarray([3.0, -1.0]) * n for n in range(1, 6)]
    key = jax.random.key(0)
    for number, value in enumerate(map(jnp.asarray, values)):
        step = Step(params, {}, extra, {}, key, jnp.int32(number))
        extra = method.after_step(step, {"a": value})
    expected = 0.9**5 * np.array([1.0, 2.0]) + sum(
        0.1 * 0.9 ** (5 - n) * np.asarray(value) for n, value in enumerate(values, 1)
    )
    np.testing.assert_allclose(method.inference_params(params, extra)["a"], expected, rtol=1e-5)
    plain = make("large_fov")
    assert plain.inference_params(params, plain.init_extra(params)) is params


def test_trained_batch_norm_uses_the_batch_and_follows_it():
    x = jnp.asarray(np.random.default_rng(0).normal(3, 2, (4, 5, 6, 2)), jnp.float32)
    variables = BatchNorm().init(jax.random.key(0), x)
    trained: Any = BatchNorm(momentum=0.25).apply(variables, x, mutable=["batch_stats"])
    y, changed = trained
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(y, (0, 1, 2)), 1, atol=1e-4)
    statistics = changed["batch_stats"]
    np.testing.assert_allclose(statistics["mean"], 0.25 * np.mean(x, (0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.75 + 0.25 * np.var(x, (0, 1, 2)), rtol=1e-5)
    frozen: Any = BatchNorm().apply(variables, x)
    np.testing.assert_allclose(frozen, x, rtol=1e-4)


def test_backbones_batch_norm_is_trained_where_asked_for(monkeypatch: pytest.MonkeyPatch):
    few_groups(mobilenet_v2, monkeypatch)
    trained, frozen = (
        Segmentation(
            num_classes=3,
            backbone=MobileNetV2(bn_momentum=m, taps=(3, 5)),
            head=small("large_fov"),
        )
        for m in (0.1, 0.0)
    )
    path = "backbone/features_6/conv_0_1/scale"
    for method, is_frozen in ((trained, False), (frozen, True)):
        rules = method.param_rules()
        first = next(rule for rule in rules if re.search(rule.pattern, path))
        assert first.frozen == is_frozen
    params, variables = init_variables(trained, 0)
    batch = batch_of(32)
    for method, moves in ((trained, True), (frozen, False)):
        _, aux = jax.jit(loss_function(method))(
            params, variables, batch, jax.random.key(0), jnp.int32(0)
        )
        old = variables["batch_stats"]["backbone"]["features_6"]["conv_0_1"]["mean"]
        new = aux.model_state["batch_stats"]["backbone"]["features_6"]["conv_0_1"]["mean"]
        assert bool(jnp.any(old != new)) == moves


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(head=dict(name="unet")), "method.head.name to be one of aspp, large_fov, v3plus"),
        (dict(head=dict(name="aspp", features=3)), "head.features is not a setting of Aspp"),
        (dict(head=dict(name="aspp", outputs=3)), "head.outputs is not a setting of Aspp"),
        (dict(ema=1.0), "below 1"),
        (dict(presence_weight=-1.0), "0 or more, found -1"),
    ],
)
def test_mistakes_are_the_users(fields: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        section = dict(name="segmentation", backbone=dict(name="tiny"))
        Method.from_config(section | fields, "method", num_classes=3)
