"""Puzzle-CAM: the reference's terms, weights, maps and gradients; batch norm; slow versions."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.reference.drawing import draw
from tests.reference.golden_weights import torch_shape
from tests.toys.compiler import QUICK
from tests.toys.normed import Normed
from wsss_jax.methods.base import Step
from wsss_jax.methods.puzzle_cam import PuzzleCam
from wsss_jax.methods.variables import init_variables, variable_shapes
from wsss_jax.models.layers import Conv
from wsss_jax.models.resnet import ResNet
from wsss_jax.models.tiny import Tiny
from wsss_jax.ops.max_norm import max_norm
from wsss_jax.training.optimizer import assign_rules
from wsss_jax.weights.import_weights import import_arrays, torch_names

FIXED, TRAINED = "fix_", ""
"""The prefixes of the reference's values with batch norm that is kept and trained."""

KEPT = "mean", "var"
"""The running statistics of batch norm."""

VARIANTS: dict[str, dict[str, Any]] = {
    "L1_masking": {},
    "L2_masking": dict(distance="l2"),
    "L1_none": dict(classes="all"),
    "L1_selection": dict(classes="present"),
    "level_cam": dict(normalized_maps=True),
}


def puzzle(**fields: Any) -> PuzzleCam:
    return PuzzleCam(**{"num_classes": 20, "backbone": Tiny(width=8), **fields})


@pytest.fixture(scope="module")
def small(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "puzzle_cam.npz") as file:
        return dict(file)


def total(terms: dict[str, Any], alpha: float) -> float:
    return float(terms["cls"] + terms["p_cls"] + alpha * terms["re"])


@pytest.mark.parametrize("variant", [*VARIANTS, "trained"])
def test_golden_terms(variant: str, small: dict[str, np.ndarray]):
    prefix = TRAINED if variant == "trained" else FIXED
    cam, merged, labels = (
        jnp.asarray(small[name]) for name in (f"{prefix}A", f"{prefix}A_merged", "labels")
    )
    terms = puzzle(**VARIANTS.get(variant, {})).terms(cam, merged, labels)
    every = json.loads(str(small["variants"]))
    expected = json.loads(str(small["losses"])) if variant == "trained" else every[variant]
    for name in ("cls", "p_cls", "re"):
        assert float(terms[name]) == pytest.approx(expected[name], rel=1e-5), name
    assert total(terms, expected["alpha"]) == pytest.approx(expected["total"], rel=1e-5)


def test_golden_weights(small: dict[str, np.ndarray]):
    rows = small["alpha_schedule"]
    assert {share for *_, share, _ in rows} >= {0, 0.5}
    for number, steps, share, value in rows.tolist():
        found = puzzle(ramp=share).weight(jnp.int32(number), int(steps))
        assert float(found) == pytest.approx(value, rel=1e-6), (number, steps, share)
    assert float(puzzle().weight(jnp.int32(3), 0)) == 4  # of a training of unknown length


def test_golden_normalized_maps(small: dict[str, np.ndarray]):
    cam = jnp.moveaxis(jnp.asarray(small["make_cam_in"]), -1, 1)
    found = jnp.moveaxis(max_norm(cam), 1, -1)
    np.testing.assert_allclose(found, small["make_cam_out"], rtol=1e-5, atol=1e-6)


def slow_terms(
    method: PuzzleCam, cam: np.ndarray, merged: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Entry by entry, in float64."""
    b, *_, classes = cam.shape

    def classified(maps: np.ndarray) -> float:
        costs = []
        for n, k in np.ndindex(b, classes):
            z = maps[n, :, :, k].mean()
            costs.append(np.log1p(np.exp(-z)) if labels[n, k] else np.log1p(np.exp(z)))
        return float(np.mean(costs))

    def normal(maps: np.ndarray) -> np.ndarray:
        found = np.empty_like(maps)
        for n, k in np.ndindex(b, classes):
            m = np.maximum(maps[n, :, :, k], 0)
            found[n, :, :, k] = np.maximum(m - 1e-5, 0) / (m.max() + 1e-5)
        return found

    whole, parts = (normal(m) if method.normalized_maps else m for m in (cam, merged))
    counted: list[list[float]] = [[] for _ in range(b)]
    for n, y, x, k in np.ndindex(cam.shape):
        distance = abs(whole[n, y, x, k] - parts[n, y, x, k])
        distance = distance**2 if method.distance == "l2" else distance
        if labels[n, k] or method.classes == "all":
            counted[n].append(distance)
        elif method.classes == "masked":
            counted[n].append(0.0)
    means = [float(np.mean(one)) if one else 0.0 for one in counted]
    return {"cls": classified(cam), "p_cls": classified(parts), "re": sum(means) / b}


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("classes", ["masked", "present", "all"])
@pytest.mark.parametrize("normalized", [False, True])
def test_terms_and_their_slopes_entry_by_entry(distance: str, classes: str, normalized: bool):
    fields = dict(distance=distance, classes=classes, normalized_maps=normalized)
    method = puzzle(num_classes=3, **fields)
    rng = np.random.default_rng(0)
    maps = rng.normal(0, 2, (2, 3, 4, 6, 3))
    direction = rng.normal(size=maps.shape)
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.float32)  # the second shows nothing

    def loss(maps: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        terms = method.terms(maps[0], maps[1], jnp.asarray(labels))
        return terms["cls"] + terms["p_cls"] + 4 * terms["re"], terms

    gradient, terms = jax.grad(loss, has_aux=True)(jnp.asarray(maps, jnp.float32))
    for name, value in slow_terms(method, maps[0], maps[1], labels).items():
        assert value > 0.05 and float(terms[name]) == pytest.approx(value, rel=1e-5), name
    # Both the maps of the images and those of the tiles learn.
    for side in range(2):
        way = np.where(np.arange(2)[:, None, None, None, None] == side, direction, 0)
        moved = (maps + amount * way for amount in (1e-6, -1e-6))
        above, below = (total(slow_terms(method, m[0], m[1], labels), 4.0) for m in moved)
        slope = float(np.sum(np.asarray(gradient) * way))
        assert slope == pytest.approx((above - below) / 2e-6, rel=1e-3)


def images_of(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


def step_on(method: PuzzleCam, images: np.ndarray, number: int, steps: int) -> Step:
    params, variables = init_variables(method, 0)
    batch = {
        "image": images,
        "valid": np.ones(images.shape[:3], bool),
        "label": np.eye(method.num_classes, dtype=np.float32)[: len(images)],
    }
    return Step(
        params=params,
        model_state=variables,
        extra=(),
        batch=jax.tree.map(jnp.asarray, batch),
        rng=jax.random.key(0),
        step=jnp.int32(number),
        total_steps=steps,
    )


@pytest.mark.parametrize("momentum", [0.0, 0.25])
def test_images_and_tiles_have_their_own_statistics(momentum: float):
    method = puzzle(num_classes=3, backbone=Normed(bn_momentum=momentum))
    step = step_on(method, images_of(16), 2, 10)
    loss, aux = jax.jit(method.loss)(step)
    terms = {name: float(value) for name, value in aux.terms.items()}
    assert terms["alpha"] == pytest.approx(4 * 2 / 5)
    expected = terms["cls"] + terms["p_cls"] + terms["alpha"] * terms["re"]
    assert float(loss) == pytest.approx(expected, rel=1e-6) and terms["re"] > 0

    mean, var = (np.asarray(step.model_state["batch_stats"]["backbone"]["bn"][k]) for k in KEPT)
    conv, classifier = step.params["backbone"]["conv"], step.params["fc8"]
    images = (images_of(16).astype(np.float32) - 127.5) / 127.5
    tiles = [images[:, y : y + 8, x : x + 8] for y in (0, 8) for x in (0, 8)]
    expected = []
    for batch in ([images], tiles):  # in this order, the running statistics follow them
        found = [Conv(5, 3, 4).apply({"params": conv}, jnp.asarray(one)) for one in batch]
        features = np.concatenate([np.asarray(one).reshape(2, -1, 5) for one in found], 1)
        of_batch = features.mean((0, 1)), features.var((0, 1))
        used = of_batch if momentum else (mean, var)
        maps = [np.maximum((one - used[0]) / np.sqrt(used[1] + 1e-5), 0) for one in found]
        expected.append([one @ np.asarray(classifier["kernel"])[0, 0] for one in maps])
        mean, var = (o + momentum * (n - o) for o, n in zip((mean, var), of_batch, strict=True))
    np.testing.assert_allclose(aux.maps["cam"], expected[0][0], rtol=1e-4, atol=1e-5)
    upper, lower = (np.concatenate(expected[1][n : n + 2], 2) for n in (0, 2))
    merged = np.concatenate([upper, lower], 1)
    np.testing.assert_allclose(aux.maps["cam_tiles"], merged, rtol=1e-4, atol=1e-5)
    new = aux.model_state["batch_stats"]["backbone"]["bn"]
    for name, value in zip(KEPT, (mean, var), strict=True):
        np.testing.assert_allclose(new[name], value, rtol=1e-4, atol=1e-6)


def test_published_parameter_groups():
    method = puzzle(backbone=ResNet(frozen_layers=-1, bn_momentum=0.1))
    params, _ = variable_shapes(method)
    for path, rule in assign_rules(params, method.param_rules()).items():
        expected = (1.0, True)
        if path.endswith("bias"):
            expected = (2.0, False)
        elif path == "fc8/kernel":
            expected = (10.0, True)
        assert (rule.lr, rule.decay) == expected and not rule.frozen, path


def test_names_of_the_authors_program():
    arrays = {
        name: np.array(number)
        for number, name in enumerate(
            ("model.conv1.weight", "stage1.0.weight", "stage2.0.0.bn1.bias", "classifier.weight")
        )
    }
    assert puzzle().foreign_arrays(arrays) == {"conv1.weight": 0, "fc8.weight": 3}


class Network:
    """The reference's network, with weights under the names of the authors' program."""

    def __init__(self, path: Path, momentum: float):
        with np.load(path) as file:
            self.golden = dict(file)
        self.method = puzzle(backbone=ResNet(frozen_layers=-1, bn_momentum=momentum))
        params, variables = variable_shapes(self.method)
        shapes = {"params": params, **variables}
        flat: dict[str, Any] = traverse_util.flatten_dict(shapes, sep="/")
        self.names = {
            path: "classifier.weight" if path == "params/fc8/kernel" else f"model.{name}"
            for path, name in torch_names(shapes, self.method.backbone).items()
        }
        seed = int(self.golden["seed"])
        arrays = {
            name: draw(name, torch_shape(flat[path].shape), seed)
            for path, name in self.names.items()
        }
        self.variables: Any = import_arrays(
            shapes, self.method.foreign_arrays(arrays), backbone=self.method.backbone
        )

    def step(self) -> Any:
        """((loss, (terms, maps, statistics)), gradients of all parameters)"""

        def loss(params: Any, statistics: Any, images: Any, labels: Any) -> Any:
            variables = {"params": params, "batch_stats": statistics}
            cam, merged, state = self.method.maps(variables, images, jax.random.key(0))
            terms = self.method.terms(cam, merged, labels)
            value = terms["cls"] + terms["p_cls"] + self.method.alpha * terms["re"]
            return value, (terms, (cam, merged), state)

        arguments = (
            self.variables["params"],
            self.variables["batch_stats"],
            jnp.asarray(self.golden["image"]),
            jnp.asarray(self.golden["labels"]),
        )
        program = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*arguments)
        return program.compile(compiler_options=QUICK)(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prefix", "momentum", "of_maps", "of_losses", "of_norms"),
    [(TRAINED, 0.1, 5e-4, 1e-4, 2e-2), (FIXED, 0.0, 1e-5, 1e-5, 3e-3)],
)
def test_golden_step(
    prefix: str,
    momentum: float,
    of_maps: float,
    of_losses: float,
    of_norms: float,
    shared: Path,
):
    network = Network(shared / "golden" / "puzzlecam.npz", momentum)
    golden = network.golden
    (loss, (terms, maps, state)), gradient = network.step()
    for found, name in zip(maps, ("A", "A_merged"), strict=True):
        expected = golden[prefix + name]
        np.testing.assert_allclose(found, expected, atol=of_maps * np.abs(expected).max())
    expected = json.loads(str(golden[f"{prefix}losses"]))
    for name in ("cls", "p_cls", "re"):
        assert float(terms[name]) == pytest.approx(expected[name], rel=of_losses), name
    assert float(loss) == pytest.approx(expected["total"], rel=of_losses)
    norms = {
        network.names[f"params/{path}"]: float(np.linalg.norm(np.asarray(value, np.float64)))
        for path, value in traverse_util.flatten_dict(gradient, sep="/").items()
    }
    expected = json.loads(str(golden[f"{prefix}grad_norms"]))
    assert set(norms) == set(expected)
    assert set(network.names.values()) == set(json.loads(str(golden["param_names"])))
    for name, value in expected.items():
        assert norms[name] == pytest.approx(value, rel=of_norms), name

    old, new = (one["batch_stats"]["backbone"] for one in (network.variables, state))
    if not momentum:
        assert all(
            np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
        )
        return
    images = golden["image"]
    for path, name, stride in (
        (("bn1",), "bn1", 2),
        (("layer4_2", "bn3"), "last", 16),
    ):
        before, after = old, new
        for part in path:
            before, after = before[part], after[part]
        np.testing.assert_allclose(
            after["mean"], golden[f"{name}_running_mean"], rtol=1e-3, atol=1e-4
        )
        # The program follows the unbiased variance, and we follow the one that normalizes.
        pixels = images[..., 0].size // stride**2
        kept = (1 - momentum) ** 2 * np.asarray(before["var"])
        biased = kept + (golden[f"{name}_running_var"] - kept) * (pixels - 1) / pixels
        np.testing.assert_allclose(after["var"], biased, rtol=1e-3)
