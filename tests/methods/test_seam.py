"""SEAM: the reference's maps, losses and gradients; its rules; padding, precision and options."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.golden_weights import Reference, compute_reference, drawn_variables
from tests.toys.steps import loss_function
from wsss_jax.methods.seam import Seam
from wsss_jax.models.resnet38 import ResNet38
from wsss_jax.models.tiny import Tiny
from wsss_jax.training.optimizer import assign_rules

TINY = Tiny(width=8)
TERMS = ("cls1", "cls2", "rvmin1", "rvmin2", "er", "ecr1", "ecr2")


def small_seam(**fields: Any) -> Seam:
    return Seam(**{"num_classes": 3, "backbone": TINY, "dims": (4, 6, 8), **fields})


def variables_of(method: Seam) -> Any:
    return drawn_variables(method.model(), method.backbone, seed=0)


def batch_of(size: tuple[int, int] = (40, 48)) -> dict[str, jax.Array]:
    image = np.random.default_rng(0).integers(0, 256, (2, *size, 3))
    valid = np.ones((2, *size), bool)
    valid[1, 30:] = False
    return {
        "image": jnp.asarray(image, jnp.uint8),
        "valid": jnp.asarray(valid),
        "label": jnp.asarray([[1.0, 0, 0], [0, 1, 1]]),
        "index": jnp.arange(2),
    }


@pytest.fixture(scope="module")
def step() -> Any:
    """(parameters, compiled loss with gradient) of the small network."""
    method = small_seam(er_weight=0.5, ecr_weight=2.0)
    variables = variables_of(method)
    function = jax.jit(jax.value_and_grad(loss_function(method), has_aux=True))
    return variables["params"], lambda batch: function(
        variables["params"], {}, batch, jax.random.key(1), jnp.int32(0)
    )


def test_loss_is_the_weighted_sum_of_its_terms(step):
    (loss, aux), gradient = step[1](batch_of())
    terms = {name: float(value) for name, value in aux.terms.items()}
    assert set(terms) == {"loss", *TERMS}
    assert all(terms[name] > 0 for name in TERMS)
    expected = sum(terms[name] for name in TERMS[:4]) / 2
    expected += 0.5 * terms["er"] + 2 * (terms["ecr1"] + terms["ecr2"])
    assert float(loss) == pytest.approx(expected, rel=1e-5) == terms["loss"]
    assert aux.maps["cam"].shape == aux.maps["cam_rv"].shape == (2, 40, 48, 4)
    assert aux.maps["cam_small"].shape == (2, 12, 14, 4)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_finite_without_labels_or_contents(step):
    batch = batch_of()
    batch["label"] = jnp.zeros_like(batch["label"])
    batch["valid"] = jnp.zeros_like(batch["valid"])
    (loss, _), gradient = step[1](batch)
    assert jnp.isfinite(loss)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_what_was_padding_does_not_matter(step):
    batch = batch_of()
    (loss, _), _ = step[1](batch)
    filled = jnp.where(batch["valid"][..., None], batch["image"], 255)
    (other, _), _ = step[1]({**batch, "image": filled})
    assert loss == other


def test_correlation_sends_no_gradient_to_backbone_and_classifier():
    method = small_seam(dropout=0.0)
    variables = variables_of(method)
    x = method.normalized(batch_of()["image"], batch_of()["valid"])

    def revised(params):
        output: Any = method.model().apply({"params": params}, x)
        return (output["cam_rv"] ** 2).sum()

    gradient = jax.jit(jax.grad(revised))(variables["params"])
    for name in ("f8_3", "f8_4", "f9"):
        assert gradient[name]["kernel"].any(), name
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient["backbone"]))
    assert not gradient["fc8"]["kernel"].any()


@pytest.mark.parametrize("use_pcm, map_stride", [(True, 0), (False, 0), (True, 4)])
def test_prediction_under_padding(use_pcm, map_stride):
    method = small_seam(use_pcm=use_pcm, map_stride=map_stride)
    variables = variables_of(method)
    assert ("f9" in variables["params"]) == use_pcm
    image = batch_of((64, 48))["image"]
    valid = np.zeros((2, 64, 48), bool)
    valid[:, :41, :30] = True
    predict = jax.jit(method.predict)
    padded = predict(variables, image, jnp.asarray(valid))
    alone = predict(variables, image[:, :41, :30], jnp.ones((2, 41, 30), bool))
    for name in ("cam", "cam_main"):
        height, width = (11, 8) if map_stride == 4 else (6, 4)
        assert alone[name].shape == (2, height, width, 3)
        np.testing.assert_allclose(padded[name][:, :height, :width], alone[name], atol=1e-5)
    assert jnp.array_equal(alone["cam"], alone["cam_main"]) != use_pcm


def test_loss_without_correlation():
    method = small_seam(use_pcm=False, dropout=0.0)
    variables = variables_of(method)
    x = method.normalized(batch_of()["image"], batch_of()["valid"])
    objective = jax.jit(method.objective)
    loss, terms, maps = objective(variables, x, batch_of()["label"], jax.random.key(0))
    assert jnp.isfinite(loss) and terms["ecr1"] > 0
    np.testing.assert_array_equal(maps["cam"], maps["cam_rv"])
    # Nothing supervises the classifier's background channel, so nothing may depend on it.
    kernel = variables["params"]["fc8"]["kernel"].at[..., 0].mul(-3)
    changed = {"params": {**variables["params"], "fc8": {"kernel": kernel}}}
    assert objective(changed, x, batch_of()["label"], jax.random.key(0))[0] == loss


def test_bfloat16_is_close():
    batch, method = batch_of(), small_seam()
    variables = variables_of(method)
    exact, coarse = (
        jax.jit(m.predict)(variables, batch["image"], batch["valid"])["cam"]
        for m in (method, small_seam(dtype="bfloat16"))
    )
    assert coarse.dtype == jnp.float32
    assert 0 < jnp.abs(exact - coarse).mean() < 0.05


def test_normalized_images():
    image = jnp.full((1, 2, 2, 3), 255, jnp.uint8)
    valid = jnp.asarray([[[True, False], [False, False]]])
    x = Seam(num_classes=3, backbone=ResNet38()).normalized(image, valid)
    expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(x[0, 0, 0], expected, rtol=1e-5)
    assert not x[0, 1].any() and not x[0, 0, 1].any()


def test_parameter_groups_and_count():
    method = Seam(num_classes=20, backbone=ResNet38())
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(method.model().init, jax.random.key(0), x)["params"]
    rules = assign_rules(params, method.param_rules())
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 105_358_208
    for path, rule in rules.items():
        if not path.startswith("backbone/"):
            assert (rule.lr, rule.decay, rule.frozen) == (10, True, False), path
        elif "bn" in path or path.split("/")[1] in ("conv1a", "b2", "b2_1", "b2_2"):
            assert rule.frozen, path
        else:
            assert (rule.lr, rule.decay, rule.frozen) == (1, True, False), path
    # Biases are a group of their own, wherever a network has them.
    biased = assign_rules(
        {"backbone": {"b3": {"conv": {"bias": x}}}, "fc8": {"bias": x}}, method.param_rules()
    )
    assert {path: (rule.lr, rule.decay) for path, rule in biased.items()} == {
        "backbone/b3/conv/bias": (2, False),
        "fc8/bias": (20, False),
    }


@pytest.fixture(scope="module")
def reference(shared: Path) -> Reference:
    backbone = ResNet38(dropout=(0.0, 0.0))
    method = Seam(num_classes=20, backbone=backbone, dropout=0.0)
    return compute_reference(shared / "golden" / "seam.npz", method)


def test_golden_maps(reference: Reference):
    reference.check_maps(
        {"cam": "cam1", "cam_rv": "cam_rv1", "cam_small": "cam2", "cam_rv_small": "cam_rv2"}
    )


def test_golden_losses(reference: Reference):
    reference.check_losses()


def test_golden_gradient_norms(reference: Reference):
    reference.check_gradient_norms()
