"""The cost of a training step is what can be counted by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.toys.sections import stage_of
from wsss_jax.methods.base import Method
from wsss_jax.pipeline.config import load_config
from wsss_jax.stages.train import Train
from wsss_jax.training.step_cost import StepCost, step_cost


def _step_cost(section: Any, method: Method) -> StepCost:
    stage = stage_of(Train, section)
    crop, classes = stage.augment.crop, method.num_classes
    batch = method.batch_spec().shapes(stage.batch_size, crop, classes)
    return step_cost(method, stage.optimizer, batch)


def test_step_cost_counts_what_is_known():
    c: Any = load_config("cam_shapes")
    c.train.batch_size = 2
    method = Method.from_config(c.train.method.to_dict(), num_classes=6)
    two = _step_cost(c.train, method)
    assert two.frozen == 0 and two.parameters == two.gradients == 4 * two.trainable
    assert two.optimizer >= two.gradients  # momentum
    c.train.batch_size = 4
    four = _step_cost(c.train, method)
    assert four.flops == pytest.approx(2 * two.flops, rel=0.02)
    assert four.activations == pytest.approx(2 * two.activations, rel=0.02)
    # No more than every layer's maps a few times over, no less than its convolutions' inputs.
    assert 2**20 < two.activations < 2**26


def test_step_cost_counts_loops_in_full():
    """A step with wide layers, which are loops on a CPU, is three forward passes."""
    c: Any = load_config("cam_voc")
    c.train.batch_size, c.train.augment.crop = 1, 320
    method = Method.from_config(c.train.method.to_dict(), num_classes=20)
    network = method.model()
    image = jax.ShapeDtypeStruct((1, 320, 320, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
    forward = jax.jit(network.apply).trace(variables, image)
    counted: Any = forward.lower(lowering_platforms=("cuda",)).cost_analysis()
    # The first two levels are frozen: they are run once only.
    assert 2.4 < _step_cost(c.train, method).flops / counted["flops"] < 3.1
