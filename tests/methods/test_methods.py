"""Every method of the package passes the same checks: a new file is tested by existing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.toys import light_methods
from tests.toys.light_methods import CLASSES, TINY, make
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
TRAINED = light_methods.trained_names()


def make_batch(seed=0):
    return jax.tree.map(jnp.asarray, light_methods.make_batch(BATCH, seed))


@functools.cache
def initial(method):
    return init_variables(method, 0)


class Learning:
    """The loss of a method and its gradient in one compiled program, and how often it is traced."""

    def __init__(self, method):
        self.params, self.variables = initial(method)
        self.trainable, frozen = split_frozen(
            self.params, assign_rules(self.params, method.param_rules())
        )
        extra = method.init_extra(self.params)
        self.traces = 0

        def loss(trainable, batch, step):
            self.traces += 1
            params = join(trainable, frozen)
            key = jax.random.key(1)
            return loss_function(method)(params, self.variables, batch, key, step, extra)

        self.loss = loss
        self.with_gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def __call__(self, batch, step=0):
        """((loss, aux), gradients by path)"""
        return self.with_gradient(self.trainable, batch, jnp.int32(step))


@functools.cache
def learning(method):
    return Learning(method)


@pytest.mark.parametrize("name", TRAINED)
def test_loss_is_finite_and_reaches_every_trainable_parameter(name):
    learn = learning(make(name))
    variables = learn.variables
    (loss, aux), grads = learn(make_batch())
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
    shapes, _ = variable_shapes(method)
    rules = assign_rules(shapes, method.param_rules())
    frozen = {path for path, rule in rules.items() if rule.frozen}
    assert any("features_0_0" in path for path in frozen)
    assert not any("backbone" not in path for path in frozen)
    trainable, rest = split_frozen(shapes, rules)
    assert set(rest) == frozen and not set(trainable) & frozen


# Every single operation is compiled. In the quick tests, programs that are traced anew must agree:
# in bfloat16 below, and on eight devices.
OF_MANY_OPERATIONS = ("affinity", "ecsnet", "irnet", "pss", "seam")
EAGER = [
    pytest.param(name, marks=pytest.mark.slow) if name in OF_MANY_OPERATIONS else name
    for name in TRAINED
]


@pytest.mark.parametrize("name", EAGER)
def test_jit_equals_eager(name):
    learn = learning(make(name))
    eager, _ = learn.loss(learn.trainable, make_batch(), jnp.int32(0))
    np.testing.assert_allclose(learn(make_batch())[0][0], eager, rtol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_one_trace_per_shape(name):
    learn = learning(make(name))
    learn(make_batch())
    traces = learn.traces
    for step in range(3):
        learn(make_batch(step), step)
    assert learn.traces == traces > 0


@pytest.mark.parametrize("name", NAMES)
def test_prediction_ignores_padding(name):
    method = make(name)
    params, variables = initial(method)
    predict = jax.jit(method.predict)
    image = make_batch()["image"][:1, :21, :27]
    exact = predict({"params": params, **variables}, image, jnp.ones((1, 21, 27), bool))
    canvas = jnp.zeros((1, 64, 32, 3), jnp.uint8).at[:, :21, :27].set(image)
    # Whatever lies in the padding must not matter.
    canvas = canvas.at[:, 21:].set(200)
    valid = jnp.zeros((1, 64, 32), bool).at[:, :21, :27].set(True)
    padded = predict({"params": params, **variables}, canvas, valid)
    assert exact.keys() == padded.keys() == set(method.outputs)
    for key, value in exact.items():
        _, height, width, _ = value.shape
        np.testing.assert_allclose(
            padded[key][:, :height, :width], value, atol=1e-4 * float(jnp.abs(value).max())
        )


@pytest.mark.parametrize("name", TRAINED)
def test_bfloat16_is_close_to_float32(name):
    (loss, _), _ = learning(make(name))(make_batch())
    half = Learning(make(name, dtype="bfloat16"))
    arguments = half.trainable, make_batch(), jnp.int32(0)
    rough, _ = jax.jit(half.loss)(*arguments)
    grads = jax.eval_shape(lambda *given: half.with_gradient(*given)[1], *arguments)
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


CHECKS = [check for check in list(globals().values()) if hasattr(check, "pytestmark")]
"""The checks of every method, for methods outside the package."""
