"""Optimizer of the papers: SGD with coupled decay, parameter groups and a polynomial schedule."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jaxtyping import PyTree

from wsss_jax.errors import UserError
from wsss_jax.types import ParamRule

FlatParams = dict[str, Any]
"""Arrays (or their shapes) by path, such as ``backbone/b4_1/conv_branch2a/kernel``."""


def assign_rules(params: PyTree, rules: tuple[ParamRule, ...]) -> dict[str, ParamRule]:
    """The rule of each parameter, by path: the first whose pattern is found in the path.

    Raises:
      ValueError: a parameter that no rule covers.
    """
    assigned: dict[str, ParamRule] = {}
    for path in traverse_util.flatten_dict(params, sep="/"):
        rule = next((rule for rule in rules if re.search(rule.pattern, path)), None)
        if rule is None:
            raise ValueError(f"no rule covers the parameter {path}")
        assigned[path] = rule
    return assigned


def split_frozen(params: PyTree, rules: dict[str, ParamRule]) -> tuple[FlatParams, FlatParams]:
    """(trainable, frozen) parameters by path; `join` puts them together again."""
    flat = traverse_util.flatten_dict(params, sep="/")
    trainable = {path: value for path, value in flat.items() if not rules[path].frozen}
    frozen = {path: value for path, value in flat.items() if rules[path].frozen}
    return trainable, frozen


def join(trainable: FlatParams, frozen: FlatParams) -> PyTree:
    """The nested tree of `split_frozen`'s two parts."""
    return traverse_util.unflatten_dict({**trainable, **frozen}, sep="/")


def schedule(config: Mapping[str, Any], steps: int) -> optax.Schedule:
    """Learning rate by step.

    ``schedule="poly"``: lr·(1 − step/steps)^poly_power, the papers' own; ``"cosine"`` and
    ``"constant"`` as their names say. ``warmup_steps`` rise linearly before it.
    """
    lr, kind = config["lr"], config.get("schedule", "poly")
    if kind == "poly":
        main = optax.polynomial_schedule(lr, 0.0, config.get("poly_power", 0.9), steps)
    elif kind == "cosine":
        main = optax.cosine_decay_schedule(lr, steps)
    elif kind == "constant":
        main = optax.constant_schedule(lr)
    else:
        raise UserError(
            f"expected a schedule poly, cosine or constant, found {kind!r}: change"
            " optimizer.schedule"
        )
    warmup = config.get("warmup_steps", 0)
    if not warmup:
        return main
    return lambda step: main(step) * jnp.minimum((step + 1) / warmup, 1.0)


def make_optimizer(
    config: Mapping[str, Any], rules: dict[str, ParamRule], steps: int
) -> optax.GradientTransformation:
    """SGD (``name="sgd"``) or Adam (``"adam"``) over the trainable parameters by path.

    The weight decay of SGD is coupled, as in PyTorch: it is added to the gradient before momentum
    and learning rate. Adam's is decoupled (AdamW).

    Args:
      config: lr, weight_decay, momentum, see `schedule` for the rest.
      rules: of all parameters, from `assign_rules`.
      steps: length of the run.
    """
    name, decay = config.get("name", "sgd"), config.get("weight_decay", 0.0)

    def decayed(params: FlatParams) -> dict[str, bool]:
        return {path: rules[path].decay for path in params}

    if name == "sgd":
        momentum = config.get("momentum", 0.0)
        parts = [
            optax.add_decayed_weights(decay, decayed) if decay else optax.identity(),
            optax.trace(momentum) if momentum else optax.identity(),
        ]
    elif name == "adam":
        parts = [
            optax.scale_by_adam(),
            optax.add_decayed_weights(decay, decayed) if decay else optax.identity(),
        ]
    else:
        raise UserError(f"expected an optimizer sgd or adam, found {name!r}: change optimizer.name")

    def multiply(updates: Any, params: Any = None) -> FlatParams:
        del params
        return {path: rules[path].lr * update for path, update in updates.items()}

    return optax.chain(
        *parts,
        optax.stateless(multiply),
        optax.scale_by_learning_rate(schedule(config, steps)),
    )


def parameter_count(params: PyTree) -> int:
    """Numbers in a tree of arrays (or of their shapes)."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(params))
