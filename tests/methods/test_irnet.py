"""IRNet: published values, its loss pair by pair, flipped images, the canvas, the mean shift."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.golden_irn import drawn_as_published
from tests.reference.golden_weights import drawn_variables
from tests.toys.steps import loss_function
from wsss_jax.data.batch_spec import BatchSpec
from wsss_jax.losses.boundary import boundary_losses
from wsss_jax.methods.irnet import IrNet, _labels_of_blocks
from wsss_jax.models.layers import flip_valid
from wsss_jax.models.resnet import ResNet
from wsss_jax.models.tiny import Tiny
from wsss_jax.ops.pair_affinity import boundary_affinity
from wsss_jax.ops.path_index import paths
from wsss_jax.ops.random_walk import random_walk
from wsss_jax.training.optimizer import assign_rules

TINY = Tiny(width=8)
QUICK: Any = {"xla_backend_optimization_level": 0}


def quick(function: Any, *arguments: Any) -> Any:
    """The result of a program that runs once: not worth optimizing."""
    program = jax.jit(function).lower(*arguments)
    return program.compile(compiler_options=QUICK)(*arguments)


def slow_losses(
    boundary: np.ndarray, displacement: np.ndarray, labels: np.ndarray, radius: int
) -> dict[str, float]:
    """Pair by pair, in the places where the published program starts pairs."""
    kinds = "background", "foreground", "different"
    costs: dict[str, list[float]] = {k: [] for k in kinds}
    costs |= {"displacement_background": [], "displacement_foreground": []}
    b, h, w = labels.shape
    reach = radius - 1
    for image in range(b):
        for y, x in np.ndindex(h - reach, w - 2 * reach):
            x += reach
            for (dy, dx), points in paths(radius):
                here, there = labels[image, y, x], labels[image, y + dy, x + dx]
                if 255 in (here, there):
                    continue
                affinity = 1 - max(boundary[image, y + i, x + j] for i, j in points)
                way = displacement[image, y, x] - displacement[image, y + dy, x + dx]
                if here != there:
                    costs["different"].append(-np.log(1 + 1e-5 - affinity))
                elif here:
                    costs["foreground"].append(-np.log(affinity + 1e-5))
                    costs["displacement_foreground"] += list(np.abs(way - (dy, dx)))
                else:
                    costs["background"].append(-np.log(affinity + 1e-5))
                    costs["displacement_background"] += list(np.abs(way))
    return {kind: sum(values) / (len(values) + 1e-5) for kind, values in costs.items()}


@pytest.mark.parametrize(("size", "radius"), [((11, 13), 4), ((8, 9), 3)])
def test_losses_pair_by_pair(size: tuple[int, int], radius: int):
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 3, 255], (2, *size)).astype(np.uint8)
    boundary = rng.random((2, *size)).astype(np.float32)
    displacement = rng.normal(size=(2, *size, 2)).astype(np.float32)
    found = jax.jit(boundary_losses, static_argnums=3)(
        jnp.asarray(boundary), jnp.asarray(displacement), jnp.asarray(labels), 4
    )
    expected = slow_losses(boundary, displacement, labels, radius)
    assert set(found) == set(expected)
    for kind, value in expected.items():
        assert value > 0.1 and float(found[kind]) == pytest.approx(value, rel=1e-4), kind


@pytest.mark.parametrize("value", [0, 2, 255])
def test_kinds_without_pairs_cost_nothing(value: int):
    labels = jnp.full((1, 9, 9), value, jnp.uint8)

    def loss(maps):
        terms = boundary_losses(jax.nn.sigmoid(maps[..., 0]), maps[..., 1:], labels, 4)
        return sum(terms.values()), terms

    maps = jax.random.normal(jax.random.key(0), (1, 9, 9, 3))
    (_, terms), gradient = quick(jax.value_and_grad(loss, has_aux=True), maps)
    kind = {0: "background", 2: "foreground"}.get(value, "none")
    assert {name for name, term in terms.items() if term > 0} == (
        set() if kind == "none" else {kind, f"displacement_{kind}"}
    )
    assert jnp.isfinite(gradient).all() and gradient.any() == (kind != "none")


def test_a_map_too_small_for_pairs_costs_nothing():
    terms = boundary_losses(
        jnp.ones((1, 2, 9)), jnp.ones((1, 2, 9, 2)), jnp.ones((1, 2, 9), "uint8")
    )
    assert not any(float(term) for term in terms.values())


def test_labels_are_those_in_the_middle_of_blocks():
    labels = np.arange(36, dtype=np.uint8).reshape(6, 6)
    np.testing.assert_array_equal(
        _labels_of_blocks(jnp.asarray(labels)[None], 4)[0], [[14, 255], [255, 255]]
    )
    np.testing.assert_array_equal(
        _labels_of_blocks(jnp.asarray(labels)[None, :4, :4], 4)[0], [[14]]
    )
    blocks = _labels_of_blocks(jnp.asarray(labels)[None], 3)[0]  # of a stride that is no power of 2
    np.testing.assert_array_equal(blocks, [[7, 10], [25, 28]])


def test_flipping_by_hand():
    x = jnp.arange(1.0, 11.0).reshape(2, 1, 5, 1)
    flipped = flip_valid(x, jnp.asarray([5, 3]))[:, 0, :, 0]
    np.testing.assert_array_equal(flipped, [[5, 4, 3, 2, 1], [8, 7, 6, 0, 0]])


def batch_of(labels: np.ndarray) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*labels.shape, 3)).astype(np.uint8)
    valid = np.ones(labels.shape, bool)
    arrays = {"image": image, "valid": valid, "segmentation": labels}
    return {name: jnp.asarray(array) for name, array in arrays.items()}


def test_loss_weighs_its_terms_and_counts_the_mean():
    method = IrNet(num_classes=3, backbone=TINY, radius=3)
    variables = drawn_variables(method.model(), TINY, seed=0)
    state = {"batch_stats": variables["batch_stats"]}
    labels = np.random.default_rng(0).choice([0, 1, 2], (2, 36, 36)).astype(np.uint8)
    batch = batch_of(labels)
    nothing = jax.random.key(0), jnp.int32(0)
    loss, aux = quick(loss_function(method), variables["params"], state, batch, *nothing)
    t = {name: float(value) for name, value in aux.terms.items()}
    expected = (t["background"] + t["foreground"]) / 4 + t["different"] / 2
    expected += (t["displacement_background"] + t["displacement_foreground"]) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6) and min(t.values()) > 0
    assert aux.maps["boundary"].shape == (2, 9, 9, 1)

    def mean_of(state: Any) -> np.ndarray:
        return np.asarray(state["batch_stats"]["displacement"]["mean_shift"]["mean"])

    def displacement_with(state: Any) -> np.ndarray:
        with_state = {"params": variables["params"], **state}
        plain = dataclasses.replace(method, flip=False)
        return np.asarray(
            quick(plain.predict, with_state, batch["image"], batch["valid"])["displacement"]
        )

    raw = displacement_with(jax.tree.map(jnp.zeros_like, state))
    mean = raw.mean((0, 1, 2))
    change = mean_of(aux.model_state) - mean_of(state)
    np.testing.assert_allclose(change, 0.01 * (mean - mean_of(state)), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(displacement_with(state), raw - mean_of(state), atol=1e-5)
    assert method.batch_spec() == BatchSpec(segmentation=True)


def test_flipped_images_have_flipped_boundaries_whatever_the_padding():
    method = IrNet(num_classes=3, backbone=TINY, canvas=64)
    variables = drawn_variables(method.model(), TINY, seed=0)
    image = np.random.default_rng(0).integers(0, 256, (1, 34, 45, 3)).astype(np.uint8)
    everything = np.ones((1, 34, 45), bool)
    alone = quick(method.predict, variables, image, everything)
    assert alone["boundary"].shape == (1, 9, 12, 1) and alone["boundary"].std() > 0.01
    both = np.zeros((2, 96, 72, 3), np.uint8)
    both[0, :34, :45], both[1, :34, :45] = image[0], image[0, :, ::-1]
    valid = np.zeros((2, 96, 72), bool)
    valid[:, :34, :45] = True
    padded = quick(method.predict, variables, both, valid)
    for name in ("boundary", "displacement"):
        np.testing.assert_allclose(padded[name][0, :9, :12], alone[name][0], atol=1e-5)
    flipped = padded["boundary"][1, :9, :12]
    np.testing.assert_allclose(flipped, alone["boundary"][0, :, ::-1], atol=1e-5)
    # What the canvas adds counts in the group norm.
    method = dataclasses.replace(method, canvas=0)
    without = quick(method.predict, variables, image, everything)["boundary"]
    assert jnp.abs(without - alone["boundary"]).max() > 0.01


def test_parameter_groups():
    method = IrNet(num_classes=3, backbone=ResNet())
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(method.model().init, jax.random.key(0), x)["params"]
    assert [*params["edge"]] == [f"fc_edge{n}" for n in range(1, 7)]
    assert sorted(params["displacement"]) == [f"fc_dp{n}" for n in range(1, 8)]
    for path, rule in assign_rules(params, method.param_rules()).items():
        expected = {"backbone": (True, 1.0), "edge": (False, 1.0), "displacement": (False, 10.0)}
        assert (rule.frozen, rule.lr) == expected[path.split("/")[0]] and rule.decay


@pytest.mark.slow
def test_golden_boundary_displacement_and_walk(shared):
    golden = np.load(shared / "golden" / "irn.npz")
    method = IrNet(num_classes=20, backbone=ResNet(), canvas=128)
    variables = drawn_as_published(method, int(golden["seed"]))
    image = jnp.asarray(golden["image"])
    arguments = variables, image, jnp.ones(image.shape[:3], bool)
    maps = quick(method.maps, *arguments)
    boundary = maps["boundary"]
    np.testing.assert_allclose(boundary[0, ..., 0], golden["edge"], rtol=1e-4)
    displacement = golden["displacement"]
    np.testing.assert_allclose(
        maps["displacement"][0], displacement, atol=1e-4 * np.abs(displacement).max()
    )
    affinity, offsets = boundary_affinity(boundary[..., 0])
    scores = golden["scores"][None] * (1 - boundary)
    walked = random_walk(scores, affinity, offsets=offsets, beta=10.0, steps=256)
    np.testing.assert_allclose(walked[0], golden["rw"], rtol=1e-4)
