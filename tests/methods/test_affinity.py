"""AffinityNet: published values, its loss pair by pair, padding, strides."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.golden_weights import drawn_variables
from tests.toys.steps import loss_function
from wsss_jax.data.block_means import block_means
from wsss_jax.data.formats.walk_files import Walk
from wsss_jax.losses.pair_affinity import pair_losses
from wsss_jax.methods.affinity import Affinity
from wsss_jax.models.base import Backbone
from wsss_jax.models.mobilenet_v2 import MobileNetV2
from wsss_jax.models.resnet38 import ResNet38
from wsss_jax.models.tiny import Tiny
from wsss_jax.ops.pair_affinity import feature_affinity, pair_mask
from wsss_jax.ops.path_index import pair_offsets
from wsss_jax.ops.random_walk import random_walk
from wsss_jax.training.optimizer import assign_rules

TINY = Tiny(width=8)
DIMS = (4, 6, 8, 10)


def slow_losses(affinity: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Pair by pair, in the places where the published program starts pairs."""
    costs: dict[str, list[float]] = {"background": [], "foreground": [], "different": []}
    b, h, w = labels.shape
    for image, y, x in np.ndindex(b, h - 4, w):
        for index, (dy, dx) in enumerate(pair_offsets()):
            if not 4 <= x < w - 4:
                continue
            here, there = labels[image, y, x], labels[image, y + dy, x + dx]
            if 255 in (here, there):
                continue
            value = affinity[image, y, x, index]
            if here == there:
                kind = "foreground" if here else "background"
                costs[kind].append(-np.log(value + 1e-5))
            else:
                costs["different"].append(-np.log(1 + 1e-5 - value))
    return {kind: sum(values) / (len(values) + 1e-5) for kind, values in costs.items()}


@pytest.mark.parametrize("seed", range(3))
def test_losses_pair_by_pair(seed: int):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 3, 255], (2, 12, 13)).astype(np.uint8)
    affinity = rng.random((2, 12, 13, 34)).astype(np.float32)
    found = jax.jit(pair_losses)(jnp.asarray(affinity), jnp.asarray(labels))
    expected = slow_losses(affinity, labels)
    assert set(found) == set(expected)
    for kind, value in expected.items():
        assert float(found[kind]) == pytest.approx(value, rel=1e-4), kind


@pytest.mark.parametrize(
    ("value", "kinds"), [(255, ()), (0, ("background",)), (2, ("foreground",))]
)
def test_kinds_without_pairs_cost_nothing(value: int, kinds: tuple[str, ...]):
    labels = jnp.full((1, 12, 12), value, jnp.uint8)

    def loss(features):
        terms = pair_losses(feature_affinity(features), labels)
        return sum(terms.values()), terms

    features = jax.random.normal(jax.random.key(0), (1, 12, 12, 3))
    (_, terms), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(features)
    assert {kind for kind, term in terms.items() if term > 0} == set(kinds)
    assert jnp.isfinite(gradient).all() and gradient.any() == bool(kinds)


def test_equal_features_of_different_classes_stay_finite():
    labels = jnp.arange(144, dtype=jnp.uint8).reshape(1, 12, 12) % 5

    def loss(features):
        return pair_losses(feature_affinity(features), labels)["different"]

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.zeros((1, 12, 12, 3)))
    assert float(value) == pytest.approx(-np.log(1e-5), rel=1e-2)
    assert jnp.isfinite(gradient).all()


def test_loss_weighs_its_terms():
    method = Affinity(num_classes=3, backbone=TINY, dims=DIMS)
    variables = drawn_variables(method.model(), TINY, seed=0)
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (2, 96, 96, 3)), jnp.uint8),
        "valid": jnp.ones((2, 96, 96), bool),
        "affinity_label": jnp.asarray(rng.choice([0, 1, 2], (2, 12, 12)), jnp.uint8),
    }
    loss, aux = jax.jit(loss_function(method))(
        variables["params"], {}, batch, jax.random.key(0), jnp.int32(0)
    )
    terms = {name: float(value) for name, value in aux.terms.items()}
    expected = terms["background"] / 4 + terms["foreground"] / 4 + terms["different"] / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6) and min(terms.values()) > 0


@pytest.mark.parametrize(
    "backbone",
    [TINY, pytest.param(MobileNetV2(output_stride=16), marks=pytest.mark.slow)],
    ids=["tiny", "mobilenet_v2"],
)
def test_prediction_at_stride_8_ignores_padding(backbone: Backbone):
    method = Affinity(num_classes=3, backbone=backbone, dims=DIMS)
    variables = drawn_variables(method.model(), backbone, seed=0)
    image = np.random.default_rng(0).integers(0, 256, (1, 90, 102, 3)).astype(np.uint8)
    canvas = np.full((1, 128, 128, 3), 77, np.uint8)
    canvas[:, :90, :102] = image
    valid = np.zeros((1, 128, 128), bool)
    valid[:, :90, :102] = True
    predict = jax.jit(method.predict)
    exact = predict(variables, image, np.ones((1, 90, 102), bool))["affinity"]
    padded = predict(variables, canvas, valid)["affinity"]
    assert exact.shape == (1, 12, 13, 34)
    np.testing.assert_allclose(padded[:, :12, :13], exact, atol=1e-5)
    # Pairs start where all of a pixel's pairs fit, and only there.
    starts = np.zeros((12, 13), bool)
    starts[:8, 4:9] = True
    np.testing.assert_array_equal(np.asarray(exact)[0] > 0, starts[..., None].repeat(34, -1))
    assert not padded[:, 12:].any() and not padded[:, :, 13:].any()
    assert np.asarray(exact)[0][starts].std() > 0.01


def test_parameter_groups_and_count():
    method = Affinity(num_classes=20, backbone=ResNet38())
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(method.model().init, jax.random.key(0), x)["params"]
    heads = {name: tree["kernel"].shape[2:] for name, tree in params.items() if name != "backbone"}
    assert heads == {"f8_3": (512, 64), "f8_4": (1024, 128), "f8_5": (4096, 256), "f9": (448, 448)}
    for path, rule in assign_rules(params, method.param_rules()).items():
        if not path.startswith("backbone/"):
            assert (rule.lr, rule.decay, rule.frozen) == (10, True, False), path


@pytest.mark.slow
def test_golden_affinities_and_walk(shared):
    golden = np.load(shared / "golden" / "affinity.npz")
    method = Affinity(num_classes=20, backbone=ResNet38())
    variables = drawn_variables(method.model(), method.backbone, seed=int(golden["seed"]))
    features: Any = jax.jit(method.model().apply)(variables, jnp.asarray(golden["image"]))
    assert features.shape == (1, 16, 14, 448)
    pairs = pair_mask((16, 14), jnp.asarray([[16, 14]]))
    affinity = np.asarray(feature_affinity(features) * pairs)
    found = affinity[0, :12, 4:10].reshape(72, 34).T
    np.testing.assert_allclose(found, golden["aff"], rtol=1e-4)
    scores = block_means(golden["cam"].transpose(2, 0, 1), 8).transpose(1, 2, 0)
    walked = random_walk(scores[None], affinity, offsets=pair_offsets(), beta=8.0, steps=64)
    np.testing.assert_allclose(walked[0], golden["rw"], atol=1e-4)
    planes = np.asarray(walked)[0].transpose(2, 0, 1)
    walk = Walk(np.arange(20), planes, (128, 112), (128, 112), 8)
    # Scores within a rounding error of each other may change places.
    assert (walk.upsampled().argmax(0) == golden["label"]).mean() > 0.999
