"""Every method of the package passes the same checks: a new file is tested by existing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.toys import light_methods
from tests.toys.light_methods import CLASSES, CROP, TINY, make
from tests.toys.steps import loss_function
from wsss_jax.errors import UserError
from wsss_jax.methods.base import Method, ema_update
from wsss_jax.methods.cam import Cam
from wsss_jax.methods.variables import init_variables, variable_shapes
from wsss_jax.models.tiny import Tiny
from wsss_jax.settings import to_config
from wsss_jax.training.optimizer import assign_rules, join, split_frozen

BATCH = 4
NAMES = light_methods.names()


def make_batch(seed=0):
    return jax.tree.map(jnp.asarray, light_methods.make_batch(BATCH, seed))


@functools.cache
def initial(name):
    return init_variables(make(name), 0)


def loss_and_grad(method, params, variables, batch):
    rules = assign_rules(params, method.param_rules())
    trainable, frozen = split_frozen(params, rules)
    extra = method.init_extra(params)

    def loss(trainable):
        return loss_function(method)(
            join(trainable, frozen), variables, batch, jax.random.key(1), jnp.int32(0), extra
        )

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(trainable)


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_finite_and_reaches_every_trainable_parameter(name):
    method = make(name)
    params, variables = initial(name)
    (loss, aux), grads = loss_and_grad(method, params, variables, make_batch())
    assert np.isfinite(loss) and loss > 0
    assert all(np.isfinite(v) for v in aux.terms.values()) and aux.terms
    still = [path for path, grad in grads.items() if not np.any(np.asarray(grad))]
    assert not still
    assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))
    for value in aux.maps.values():
        assert value.shape[0] == BATCH and value.ndim == 4
    left = variables if aux.model_state is None else aux.model_state
    same = jax.tree.map(lambda a, b: a.shape == b.shape, left, variables)
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("name", NAMES)
def test_frozen_parameters_get_no_gradient_and_all_are_covered(name):
    method = make(name, dict(name="mobilenet_v2", output_stride=16))
    shapes, _ = variable_shapes(method, CROP)
    rules = assign_rules(shapes, method.param_rules())
    frozen = {path for path, rule in rules.items() if rule.frozen}
    assert any("features_0_0" in path for path in frozen)
    assert not any("backbone" not in path for path in frozen)
    trainable, rest = split_frozen(shapes, rules)
    assert set(rest) == frozen and not set(trainable) & frozen


@pytest.mark.parametrize("name", NAMES)
def test_jit_equals_eager(name):
    method = make(name)
    params, variables = initial(name)
    extra = method.init_extra(params)

    def loss(params):
        return loss_function(method)(
            params, variables, make_batch(), jax.random.key(1), jnp.int32(0), extra
        )[0]

    np.testing.assert_allclose(jax.jit(loss)(params), loss(params), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_one_trace_per_shape(name):
    method = make(name)
    params, variables = initial(name)
    traces = []

    def loss(params, batch, step):
        traces.append(step)
        extra = method.init_extra(params)
        return loss_function(method)(params, variables, batch, jax.random.key(0), step, extra)[0]

    jitted = jax.jit(loss)
    for step in range(3):
        jitted(params, make_batch(step), jnp.int32(step))
    assert len(traces) == 1


@pytest.mark.parametrize("name", NAMES)
def test_prediction_ignores_padding(name):
    method = make(name)
    params, variables = initial(name)
    image = make_batch()["image"][:1, :21, :27]
    exact = method.predict({"params": params, **variables}, image, jnp.ones((1, 21, 27), bool))
    canvas = jnp.zeros((1, 64, 32, 3), jnp.uint8).at[:, :21, :27].set(image)
    # Whatever lies in the padding must not matter.
    canvas = canvas.at[:, 21:].set(200)
    valid = jnp.zeros((1, 64, 32), bool).at[:, :21, :27].set(True)
    padded = method.predict({"params": params, **variables}, canvas, valid)
    assert exact.keys() == padded.keys() == set(method.outputs)
    for key, value in exact.items():
        _, height, width, _ = value.shape
        np.testing.assert_allclose(
            padded[key][:, :height, :width], value, atol=1e-4 * float(jnp.abs(value).max())
        )


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_close_to_float32(name):
    method, half = make(name), make(name, dtype="bfloat16")
    params, variables = initial(name)
    (loss, _), _ = loss_and_grad(method, params, variables, make_batch())
    (rough, _), grads = loss_and_grad(half, params, variables, make_batch())
    np.testing.assert_allclose(rough, loss, rtol=0.05)
    assert all(grad.dtype == jnp.float32 for grad in grads.values())


def test_unknown_method_and_field_are_the_users_mistakes():
    with pytest.raises(
        UserError, match=r"expected train\.method\.name .* found 'saem'; did you mean seam"
    ):
        Method.from_config(dict(name="saem", backbone=TINY), "train.method", num_classes=3)
    with pytest.raises(
        UserError,
        match=r"train\.method\.small_scal is not a setting of Seam; did you mean small_scale",
    ):
        Method.from_config(
            dict(name="seam", backbone=TINY, small_scal=0.5), "train.method", num_classes=3
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_section_reads_back_the_same(name):
    method = make(name)
    section = to_config(method)
    assert section.name == name and "num_classes" not in section
    assert Method.from_config(section, "method", num_classes=CLASSES) == method


def test_a_mistake_inside_a_method_is_shown_as_itself(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_method.py").write_text("import jax\n\njax.no_such_name\n")
    (tmp_path / "broken_import.py").write_text("import no_such_library\n")
    with pytest.raises(AttributeError, match="no_such_name"):
        Method.from_config(dict(name="broken_method:A", backbone=TINY), "method")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        Method.from_config(dict(name="broken_import:A", backbone=TINY), "method")


def test_a_method_without_prediction_cannot_be_made():
    class Forgetful(Cam):
        predict = Method.predict  # abstract

    with pytest.raises(TypeError, match=r"abstract method '?predict"):
        Forgetful(backbone=Tiny())  # pyright: ignore[reportAbstractUsage]


def test_what_an_ema_teacher_keeps_is_not_rounded_twice():
    """As decay·old + (1 − decay)·new, whose factors are rounded to float32 once."""
    old, new = (jax.random.normal(jax.random.key(n), (1000,)) for n in range(2))
    for decay in (0.9, 0.99, 0.996, 0.999, 0.9999):
        expected = jnp.float32(decay) * old + jnp.float32(1 - decay) * new
        np.testing.assert_array_equal(ema_update(old, new, decay), expected)
