"""The optimizer against the update rule written out, and the schedule against its formula."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsss_jax.errors import UserError
from wsss_jax.training.optimizer import assign_rules, join, make_optimizer, schedule, split_frozen
from wsss_jax.types import ParamRule

RULES = (
    ParamRule("^backbone/stem/", frozen=True),
    ParamRule("bias$", lr=2.0, decay=False),
    ParamRule("^backbone/"),
    ParamRule("^head/", lr=10.0),
)
PARAMS = {
    "backbone": {
        "stem": {"kernel": jnp.ones(2)},
        "conv": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])},
    },
    "head": {"kernel": jnp.array([3.0])},
}


def test_first_matching_rule_counts_and_an_uncovered_parameter_is_an_error():
    rules = assign_rules(PARAMS, RULES)
    assert rules["backbone/stem/kernel"].frozen
    assert rules["backbone/conv/bias"] == RULES[1]
    assert rules["backbone/conv/kernel"] == RULES[2]
    assert rules["head/kernel"].lr == 10
    with pytest.raises(ValueError, match="head/kernel"):
        assign_rules(PARAMS, RULES[:3])


def test_split_and_join_are_inverse():
    trainable, frozen = split_frozen(PARAMS, assign_rules(PARAMS, RULES))
    assert set(frozen) == {"backbone/stem/kernel"}
    together = join(trainable, frozen)
    assert together["backbone"]["conv"].keys() == PARAMS["backbone"]["conv"].keys()
    assert together["head"]["kernel"] is PARAMS["head"]["kernel"]


@pytest.mark.parametrize("momentum", [0.0, 5e-4, 0.9])
def test_sgd_is_pytorchs_coupled_update(momentum):
    rules = assign_rules(PARAMS, RULES)
    config = dict(lr=0.1, momentum=momentum, weight_decay=0.01, poly_power=0.9)
    optimizer = make_optimizer(config, rules, 5)
    trainable: Any = split_frozen(PARAMS, rules)[0]
    state = optimizer.init(trainable)
    expected = {path: np.asarray(value, np.float64) for path, value in trainable.items()}
    buffers = {path: np.zeros_like(value) for path, value in expected.items()}
    rng = np.random.default_rng(0)
    for step in range(5):
        grads = {path: rng.standard_normal(value.shape) for path, value in expected.items()}
        updates, state = optimizer.update(
            {path: jnp.asarray(g, jnp.float32) for path, g in grads.items()}, state, trainable
        )
        trainable = optax.apply_updates(trainable, updates)
        rate = 0.1 * (1 - step / 5) ** 0.9
        for path, rule in rules.items():
            if rule.frozen:
                continue
            grad = grads[path] + (0.01 * expected[path] if rule.decay else 0)
            buffers[path] = momentum * buffers[path] + grad
            expected[path] = expected[path] - rate * rule.lr * buffers[path]
    for path, value in expected.items():
        np.testing.assert_allclose(trainable[path], value, rtol=1e-5)


def test_schedules():
    poly = schedule(dict(lr=0.1, poly_power=0.9), 100)
    np.testing.assert_allclose(poly(25), 0.1 * 0.75**0.9, rtol=1e-6)
    np.testing.assert_allclose(poly(100), 0.0, atol=1e-12)
    warm = schedule(dict(lr=1.0, schedule="constant", warmup_steps=4), 10)
    np.testing.assert_allclose(np.array([warm(s) for s in range(5)]), [0.25, 0.5, 0.75, 1, 1])
    cosine = schedule(dict(lr=2.0, schedule="cosine"), 10)
    np.testing.assert_allclose(cosine(5), 1.0, rtol=1e-6)
    with pytest.raises(UserError, match="polly"):
        schedule(dict(lr=1.0, schedule="polly"), 10)
    with pytest.raises(UserError, match="sdg"):
        make_optimizer(dict(name="sdg", lr=1.0), {}, 10)
