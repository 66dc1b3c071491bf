"""SSENet: the reference's maps, losses and gradients; its options."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from golden_weights import drawn_variables, torch_norm

from wsss_jax.methods.ssenet import SseNet
from wsss_jax.models import resnet38, tiny
from wsss_jax.models.import_weights import torch_names
from wsss_jax.ops.resize import resize_planes
from wsss_jax.optim import assign_rules


def test_loss_is_the_weighted_sum_of_its_terms():
    method = SseNet(8, {"name": "tiny", "width": 8}, ser_weight=3.0, dropout=0.0)
    variables = drawn_variables(method.model(), tiny, seed=0)
    images = jnp.asarray(np.random.default_rng(0).normal(0, 1, (2, 40, 48, 3)), jnp.float32)
    labels = jnp.zeros((2, 8)).at[0, 2].set(1).at[1, jnp.asarray([0, 5])].set(1)
    objective = jax.jit(method.objective)
    loss, terms, maps = objective(variables, images, labels, jax.random.key(0))
    expected = (terms["cls"] + terms["cls_s"]) / 2 + 3 * terms["ser"]
    assert float(loss) == pytest.approx(float(expected), rel=1e-6) and terms["ser"] > 0
    assert maps["cam"].shape == (2, 40, 48, 8) and maps["cam_small"].shape == (2, 12, 14, 8)
    # L_SER by its definition, from the maps that came out.
    cam, small = (np.moveaxis(np.asarray(maps[n]), -1, 1) for n in ("cam", "cam_small"))
    shrunk = np.asarray(resize_planes(jnp.asarray(cam), small.shape[2:], align_corners=False))

    def normal(m: np.ndarray) -> np.ndarray:
        m = np.maximum(m, 0)
        return np.maximum(m - 1e-5, 0) / (m.max((2, 3), keepdims=True) + 1e-5)

    present = np.asarray(labels)[..., None, None]
    ser = np.square(normal(small) * present - normal(shrunk) * present).mean()
    assert float(terms["ser"]) == pytest.approx(ser, rel=1e-4)


@pytest.fixture(scope="module")
def reference(shared) -> Any:
    """The reference values and what this program makes of the same weights and images."""
    with np.load(shared / "golden" / "ssenet.npz") as file:
        golden = dict(file)
    backbone = {"name": "resnet38", "dropout": (0.0, 0.0)}
    method = SseNet(num_classes=20, backbone=backbone, dropout=0.0)
    variables = drawn_variables(method.model(), resnet38, int(golden["seed"]))
    rules = assign_rules(variables["params"], method.param_rules())
    flat = traverse_util.flatten_dict(variables["params"], sep="/")
    frozen = {path: value for path, value in flat.items() if rules[path].frozen}
    trained = {path: value for path, value in flat.items() if not rules[path].frozen}

    def objective(trained, frozen, statistics, image, labels):
        params = traverse_util.unflatten_dict({**trained, **frozen}, sep="/")
        state = {"params": params, "batch_stats": statistics}
        loss, terms, maps = method.objective(state, image, labels, jax.random.key(0))
        return loss, (terms, maps)

    (_, (terms, maps)), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(
        trained,
        frozen,
        variables["batch_stats"],
        jnp.asarray(golden["image"]),
        jnp.asarray(golden["labels"]),
    )
    names = torch_names(variables, resnet38)
    norms = {names[f"params/{path}"]: torch_norm(value) for path, value in gradient.items()}
    return golden, terms, maps, norms


def test_golden_maps(reference):
    golden, _, maps, _ = reference
    for name in ("cam", "cam_small"):
        scale = np.abs(golden[name]).max()
        np.testing.assert_allclose(maps[name], golden[name], rtol=1e-4, atol=1e-5 * scale)


def test_golden_losses(reference):
    golden, terms, _, _ = reference
    expected = json.loads(str(golden["losses"]))
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-4), name


def test_golden_gradient_norms(reference):
    golden, _, _, norms = reference
    expected = json.loads(str(golden["grad_norms"]))
    assert set(norms) == set(expected)  # the same parameters are trained
    for name, value in expected.items():
        assert norms[name] == pytest.approx(value, rel=5e-4), name
