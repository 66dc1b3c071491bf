"""Every method of the package passes the same checks: a new file is tested by existing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.toys import light_methods
from tests.toys.light_methods import CLASSES, CROP, TINY, make
from wsss_jax.methods import build_method
from wsss_jax.methods.variables import init_variables, variable_shapes
from wsss_jax.training.optimizer import assign_rules, join, split_frozen

BATCH = 4
NAMES = light_methods.names()


def make_batch(seed=0):
    return jax.tree.map(jnp.asarray, light_methods.make_batch(BATCH, seed))


@functools.cache
def initial(name):
    return init_variables(make(name), 0, CROP)


def loss_and_grad(method, params, variables, batch):
    rules = assign_rules(params, method.param_rules())
    trainable, frozen = split_frozen(params, rules)
    extra = method.init_extra(params)

    def loss(trainable):
        return method.loss(
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
    same = jax.tree.map(lambda a, b: a.shape == b.shape, aux.state, variables)
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
        return method.loss(params, variables, make_batch(), jax.random.key(1), jnp.int32(0), extra)[
            0
        ]

    np.testing.assert_allclose(jax.jit(loss)(params), loss(params), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_one_trace_per_shape(name):
    method = make(name)
    params, variables = initial(name)
    traces = []

    def loss(params, batch, step):
        traces.append(step)
        extra = method.init_extra(params)
        return method.loss(params, variables, batch, jax.random.key(0), step, extra)[0]

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
    assert exact.keys() == padded.keys()
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
    from wsss_jax.errors import UserError

    with pytest.raises(UserError, match="name of a method, found 'saem'"):
        build_method(dict(name="saem", backbone=TINY), CLASSES)
    with pytest.raises(UserError, match="small_scal"):
        build_method(dict(name="seam", backbone=TINY, small_scal=0.5), CLASSES)
