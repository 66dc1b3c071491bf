"""ReCAM: the reference's maps, losses, gradients and steps, and each term by its definition."""

import json
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsss_jax.errors import UserError
from wsss_jax.host.upsampling import View, ViewMaps
from wsss_jax.methods.base import Method
from wsss_jax.methods.recam import ReCam, class_features, softmax_of_present
from wsss_jax.models.base import Backbone
from wsss_jax.models.tiny import Tiny
from wsss_jax.pipeline.config import load_config
from wsss_jax.training.optimizer import OptimizerSettings, assign_rules, split_frozen

Golden = dict[str, np.ndarray]
RTOL = 1e-5


class Stored(Backbone):
    """Its features are a parameter: the gradient of a loss by them is that of the parameter."""

    shape: tuple[int, ...] = ()

    pixel_mean: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)
    pixel_std: ClassVar[tuple[float, float, float]] = (1.0, 1.0, 1.0)
    tap_strides: ClassVar[dict[str, int]] = {"conv6": 1}  # pyright: ignore

    @nn.compact
    def __call__(self, x: Any, valid: Any = None, *, train: bool = False) -> dict[str, Any]:
        return {"conv6": self.param("features", nn.initializers.zeros, self.shape)}


@pytest.fixture(scope="module")
def reference(golden: Path) -> Golden:
    with np.load(golden / "recam.npz") as file:
        return dict(file)


def network(reference: Golden, features: np.ndarray) -> tuple[ReCam, dict[str, Any], jax.Array]:
    """The method on these features, its parameters with the reference's, and blank images."""
    lam = float(reference["lam"])
    backbone = Stored(shape=features.shape)
    method = ReCam(num_classes=len(reference["w"]), backbone=backbone, softmax_weight=lam)
    kernels = {n: {"kernel": jnp.asarray(reference[k].T[None, None])} for n, k in LAYERS.items()}
    params = {"backbone": {"features": jnp.asarray(features)}, **kernels}
    return method, params, jnp.zeros((*features.shape[:3], 3))


LAYERS = {"fc8": "w", "fc8_softmax": "w2"}


def close(found: Any, expected: Any) -> None:
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=RTOL, atol=RTOL * scale)


@pytest.fixture(scope="module")
def step(reference: Golden) -> Any:
    """((loss, (terms, maps)), gradients) of the reference's features."""
    method, params, images = network(reference, reference["features"])

    def objective(params: Any) -> Any:
        labels = jnp.asarray(reference["labels"])
        loss, *rest = method.objective({"params": params}, images, labels, jax.random.key(0))
        return loss, rest

    return jax.jit(jax.value_and_grad(objective, has_aux=True))(params)


def test_golden_losses(reference: Golden, step: Any):
    (loss, (terms, _)), _ = step
    expected = json.loads(str(reference["losses"]))
    assert float(loss) == pytest.approx(expected["total"], rel=RTOL)
    assert float(terms["cls"]) == pytest.approx(expected["bce"], rel=RTOL)
    assert float(terms["sce"]) == pytest.approx(expected["sce"], rel=RTOL)


def test_golden_gradients(reference: Golden, step: Any):
    _, gradient = step
    close(gradient["backbone"]["features"], reference["grad_features"])
    for layer, name in LAYERS.items():
        close(gradient[layer]["kernel"][0, 0].T, reference[f"grad_{name}"])


def test_golden_maps_class_features_and_logits(reference: Golden, step: Any):
    (_, (_, maps)), _ = step
    positive = np.maximum(maps["cam"], 0)
    close(positive / (positive.max((1, 2), keepdims=True) + 1e-5), reference["cam"])
    close(np.mean(maps["cam"], (1, 2)), reference["logits"])
    features = class_features(jnp.asarray(reference["features"]), maps["cam"])
    close(features, reference["class_features"])
    method, params, images = network(reference, reference["features"])
    found: Any = method.model().apply({"params": params}, images)
    rows = reference["sce_image"], reference["sce_class"]
    close(found["class_logits"][rows], reference["sce_logits"])


def test_an_image_without_labels_counts_as_an_image(reference: Golden):
    method, params, images = network(reference, reference["features"])
    labels = jnp.asarray(reference["labels"]).at[-1].set(0)
    _, terms, _ = method.objective({"params": params}, images, labels, jax.random.key(0))
    expected = json.loads(str(reference["losses"]))["sce_last_image_unlabelled"]
    assert float(terms["sce"]) == pytest.approx(expected, rel=RTOL)


def predicted(reference: Golden, scale: int, output: str = "cam") -> np.ndarray:
    """The maps [2, h, w, C] of an image and its flipped copy at a scale of the reference."""
    method, params, images = network(reference, reference[f"ms_features_{scale}"])
    predict = jax.jit(lambda params: method.predict({"params": params}, images, valid)[output])
    valid, images = jnp.ones(images.shape[:3], bool), images.astype(jnp.uint8)
    return np.asarray(predict(params))


def test_golden_inference_has_the_product_of_the_weights(reference: Golden):
    expected = {"cam": "reactivated_scale1", "cam_main": "plain_scale1"}
    for output, name in expected.items():
        maps = np.maximum(predicted(reference, 0, output), 0)
        close(maps[0] + maps[1, :, ::-1], reference[name])


@pytest.mark.parametrize("name", ["ms_cam", "ms_high_res"])
def test_golden_multi_scale_maps(reference: Golden, name: str):
    """As our inference sums them, at the sizes at which the published program does."""
    height, width = reference["ms_size"].tolist()
    size = {"ms_cam": (-(-height // 4), -(-width // 4))}.get(
        name, (-(-height // 16) * 16, -(-width // 16) * 16)
    )
    views = tuple(
        View(np.moveaxis(np.maximum(one[..., reference["ms_keys"]], 0), -1, 0), size, bool(flip))
        for scale in range(4)
        for flip, one in enumerate(predicted(reference, scale))
    )
    total = ViewMaps(size, reference["ms_keys"], views, "direct", relu_each=True).summed()
    total = total[:, : reference[name].shape[0], : reference[name].shape[1]]
    total = total / (total.max((1, 2), keepdims=True) + 1e-5)
    close(np.moveaxis(total, 0, -1), reference[name])
    np.testing.assert_array_equal(np.flatnonzero(reference["ms_labels"]), reference["ms_keys"])


def test_golden_optimizer_of_the_published_recipe(golden: Path):
    """Every step until the end, at the rates of the groups: the first classifier is not new."""
    with np.load(golden / "losses_misc.npz") as file:
        reference = dict(file)
    recipe: Any = load_config("recam_voc")
    settings = OptimizerSettings.from_config(recipe.train.optimizer.to_dict())
    method = Method.from_config(recipe.train.method.to_dict(), num_classes=20)
    start = {"kernel": jnp.asarray(reference["opt_init"])}
    groups = {"backbone/layer1_0/conv2/kernel": 0, "fc8/kernel": 0, "fc8_softmax/kernel": 1}
    params = {"backbone": {"layer1_0": {"conv2": start}}, "fc8": start, "fc8_softmax": start}
    rules = assign_rules(params, method.param_rules())
    trained: Any
    trained, frozen = split_frozen(params, rules)
    assert trained.keys() == groups.keys() and not frozen
    steps = 10
    rates = np.array(json.loads(str(reference["recam_lrs"])))[:steps]
    found = settings.rate(steps)(jnp.arange(steps))
    for path, group in groups.items():
        np.testing.assert_allclose(found * rules[path].lr, rates[:, group], rtol=2e-6)
    optimizer = settings.transformation(rules, steps)
    update = jax.jit(optimizer.update)
    state = optimizer.init(trained)
    for row, gradient in enumerate(reference["opt_grads"][:steps]):
        given = dict.fromkeys(trained, jnp.asarray(gradient))
        updates, state = update(given, state, trained)
        trained = optax.apply_updates(trained, updates)
        for path, group in groups.items():
            close(trained[path], reference["recam_params"][row, group])


def test_terms_by_their_definitions():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 4, 5, 6))
    cam = rng.normal(size=(3, 4, 5, 4))
    cam[0, ..., 1] = -1  # a class without any response
    kernel = rng.normal(size=(6, 4))
    labels = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]])
    total, expected = 0.0, np.zeros((3, 4, 6))
    for n in range(3):
        terms = []
        for c in range(4):
            highest = max(max(cam[n, y, x, c], 0) for y in range(4) for x in range(5))
            for y in range(4):
                for x in range(5):
                    weight = max(cam[n, y, x, c], 0) / (highest + 1e-5)
                    expected[n, c] += weight * features[n, y, x] / 20
            logits = expected[n, c] @ kernel
            if labels[n, c]:
                terms.append(np.log(np.exp(logits).sum()) - logits[c])
        total += np.mean(terms) / 3 if terms else 0
    assert not expected[0, 1].any()
    found = class_features(jnp.asarray(features, jnp.float32), jnp.asarray(cam, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    logits = jnp.asarray(expected @ kernel, jnp.float32)
    value = softmax_of_present(logits, jnp.asarray(labels, jnp.float32))
    assert float(value) == pytest.approx(total, rel=1e-5)


def test_class_features_hold_no_product_of_maps_and_features():
    """80 classes of 2048 channels would need 80 times the memory of the features."""
    shapes = [jax.ShapeDtypeStruct((2, 32, 32, c), jnp.float32) for c in (512, 80)]
    program = jax.jit(jax.grad(lambda *a: class_features(*a).sum(), (0, 1))).lower(*shapes)
    used: Any = program.compile().memory_analysis()
    assert used.temp_size_in_bytes < 8 * 4 * 2 * 32 * 32 * (512 + 80)


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match="expected softmax_weight of 0 or more, found -1"):
        ReCam(num_classes=3, backbone=Tiny(width=8), softmax_weight=-1.0)
