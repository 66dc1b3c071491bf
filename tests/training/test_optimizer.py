"""The optimizer against the update rule written out, and the schedule against its formula."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsss_jax.errors import UserError
from wsss_jax.training.optimizer import OptimizerSettings, assign_rules, join, split_frozen
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
    settings = OptimizerSettings(lr=0.1, momentum=momentum, weight_decay=0.01, power=0.9)
    optimizer = settings.transformation(rules, 5)
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


def updated(settings: OptimizerSettings, gradients: list[dict[str, Any]]) -> Any:
    """The trainable parameters after steps with the gradients."""
    rules = assign_rules(PARAMS, RULES)
    optimizer = settings.transformation(rules, 10)
    trainable: Any = split_frozen(PARAMS, rules)[0]
    state = optimizer.init(trainable)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, trainable)
        trainable = optax.apply_updates(trainable, updates)
    return trainable


def drawn_gradients(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    shapes = split_frozen(PARAMS, assign_rules(PARAMS, RULES))[0]
    return [
        {path: jnp.asarray(rng.standard_normal(v.shape), jnp.float32) for path, v in shapes.items()}
        for _ in range(count)
    ]


def test_adamw_is_its_published_update():
    """Loshchilov & Hutter, algorithm 2: the decay does not enter the moments."""
    settings = OptimizerSettings(
        name="adamw", lr=0.1, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.01, schedule="constant"
    )
    gradients = drawn_gradients(4)
    found = updated(settings, gradients)
    rules = assign_rules(PARAMS, RULES)
    for path, value in split_frozen(PARAMS, rules)[0].items():
        x = np.asarray(value, np.float64)
        first, second = np.zeros_like(x), np.zeros_like(x)
        for t, gradient in enumerate(gradients, 1):
            g = np.asarray(gradient[path], np.float64)
            first, second = 0.8 * first + 0.2 * g, 0.95 * second + 0.05 * g**2
            step = first / (1 - 0.8**t) / (np.sqrt(second / (1 - 0.95**t)) + 1e-3)
            step += 0.01 * x if rules[path].decay else 0
            x = x - 0.1 * rules[path].lr * step
        np.testing.assert_allclose(found[path], x, rtol=1e-5)


def test_a_long_gradient_is_clipped_as_a_whole():
    (gradient,) = drawn_gradients(1)
    norm = np.sqrt(sum(float((g**2).sum()) for g in gradient.values()))
    plain = OptimizerSettings(lr=0.1, schedule="constant")
    clipped = OptimizerSettings(lr=0.1, schedule="constant", clip_norm=norm / 4)
    loose = OptimizerSettings(lr=0.1, schedule="constant", clip_norm=2 * norm)
    shorter = {path: g / 4 for path, g in gradient.items()}
    for path, value in updated(plain, [shorter]).items():
        np.testing.assert_allclose(updated(clipped, [gradient])[path], value, rtol=1e-6)
    for path, value in updated(plain, [gradient]).items():
        np.testing.assert_array_equal(updated(loose, [gradient])[path], value)


def test_nesterovs_momentum_looks_ahead():
    settings = OptimizerSettings(lr=0.1, momentum=0.9, nesterov=True, schedule="constant")
    gradients = drawn_gradients(2)
    found = updated(settings, gradients)["head/kernel"]
    first, second = (np.asarray(g["head/kernel"]) for g in gradients)
    x = 3.0 - 0.1 * 10 * (first + 0.9 * first)
    x = x - 0.1 * 10 * (second + 0.9 * (second + 0.9 * first))
    np.testing.assert_allclose(found, x, rtol=1e-5)


def test_golden_steps_of_puzzle_cam(golden: Path):
    """Its momentum is as small as its weight decay; biases have twice the rate and no decay."""
    with np.load(golden / "puzzle_cam.npz") as file:
        gradients, start = file["opt_grads"], jnp.asarray(file["opt_init"])
        expected, rates = file["puzzle_params"], json.loads(str(file["puzzle_lrs"]))
    settings = OptimizerSettings(lr=0.1, momentum=1e-4, nesterov=True, weight_decay=1e-4)
    steps = next(n for n in range(1, len(rates)) if rates[n] == rates[n - 1])
    assert steps == 10  # the program's rate stays as it is after the end of the run
    found = np.array([settings.rate(steps)(step) for step in range(steps)])
    np.testing.assert_allclose(found, [weight for weight, _ in rates[:steps]], rtol=2e-5)
    rules = {"weight": ParamRule(""), "bias": ParamRule("", lr=2.0, decay=False)}
    optimizer = settings.transformation(rules, steps)
    params: Any = dict.fromkeys(rules, start)
    state = optimizer.init(params)
    for gradient, (weight, bias) in zip(gradients[:steps], expected[:steps], strict=True):
        both: Any = dict.fromkeys(rules, gradient)
        updates, state = optimizer.update(both, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["weight"], weight, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(params["bias"], bias, rtol=1e-5, atol=1e-6)


def test_schedules():
    polynomial = OptimizerSettings(lr=0.1, power=0.9).rate(100)
    np.testing.assert_allclose(polynomial(25), 0.1 * 0.75**0.9, rtol=1e-6)
    np.testing.assert_allclose(polynomial(100), 0.0, atol=1e-12)
    above = OptimizerSettings(lr=0.1, power=2.0, end_value=0.02).rate(10)
    np.testing.assert_allclose(above(5), 0.08 * 0.25 + 0.02, rtol=1e-6)
    warm = OptimizerSettings(lr=1.0, schedule="constant", warmup_steps=4).rate(10)
    np.testing.assert_allclose(np.array([warm(s) for s in range(5)]), [0.25, 0.5, 0.75, 1, 1])
    cosine = OptimizerSettings(lr=2.0, schedule="cosine").rate(10)
    np.testing.assert_allclose(cosine(5), 1.0, rtol=1e-6)
    cosine = OptimizerSettings(lr=2.0, schedule="cosine", end_value=0.5).rate(10)
    found = np.array([cosine(0), cosine(5), cosine(10)])
    np.testing.assert_allclose(found, [2.0, 1.25, 0.5], rtol=1e-6)
    assert OptimizerSettings(lr=0.0, schedule="cosine").rate(10)(3) == 0


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            dict(lr=1.0, schedule="polly"),
            "'polynomial', 'cosine', 'constant', found 'polly'",
        ),
        (dict(lr=1.0, name="sdg"), "one of 'sgd', 'adamw', found 'sdg'; did you mean sgd"),
        (dict(lr=1.0, poly_power=0.9), "train.optimizer.poly_power is not a setting"),
        (dict(), r"expected train.optimizer.lr \(a number\), found none"),
        (dict(lr=-0.1), "expected lr of 0 or more, found -0.1"),
        (dict(lr=0.1, momentum=1.0), "expected momentum from 0 to below 1, found 1"),
        (dict(lr=0.1, nesterov=True), "expected momentum above 0 with nesterov"),
        (dict(lr=0.1, name="adamw", momentum=0.9), "expected no momentum with adamw, found 0.9"),
    ],
)
def test_mistakes_are_the_users(section: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        OptimizerSettings.from_config(section, "train.optimizer")
