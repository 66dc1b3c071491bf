"""SSENet: the reference's maps, losses and gradients; its options."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.golden_weights import Reference, compute_reference, drawn_variables
from wsss_jax.methods.ssenet import SseNet
from wsss_jax.models.resnet38 import ResNet38
from wsss_jax.models.tiny import Tiny
from wsss_jax.ops.resize import resize_planes


def test_loss_is_the_weighted_sum_of_its_terms():
    method = SseNet(num_classes=8, backbone=Tiny(width=8), ser_weight=3.0, dropout=0.0)
    variables = drawn_variables(method.model(), method.backbone, seed=0)
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
def reference(shared: Path) -> Reference:
    backbone = ResNet38(dropout=(0.0, 0.0))
    method = SseNet(num_classes=20, backbone=backbone, dropout=0.0)
    return compute_reference(shared / "golden" / "ssenet.npz", method)


def test_golden_maps(reference: Reference):
    reference.check_maps({"cam": "cam", "cam_small": "cam_small"})


def test_golden_losses(reference: Reference):
    reference.check_losses()


def test_golden_gradient_norms(reference: Reference):
    reference.check_gradient_norms()
