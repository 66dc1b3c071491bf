"""The optimizer with settings in optax's terms, parameter groups and frozen parameters."""

import dataclasses
import math
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jaxtyping import PyTree

from wsss_jax.errors import UserError
from wsss_jax.settings import Settings
from wsss_jax.settings.limits import check_limits, check_shares
from wsss_jax.types import ParamRule

FlatParams = dict[str, Any]
"""Arrays (or their shapes) by path, such as ``backbone/b4_1/conv_branch2a/kernel``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Settings):
    """The optimizer and the schedule of its learning rate.

    Attributes:
      name: ``sgd``, whose weight decay is coupled as in PyTorch (it is added to the gradient before
        momentum and learning rate), or ``adamw``, whose weight decay is decoupled.
      lr: the highest learning rate.
      momentum: the momentum of SGD.
      nesterov: whether the momentum of SGD is Nesterov's.
      b1, b2: the decay of AdamW's first and second moments.
      eps: the number that is added to the root of AdamW's second moment.
      weight_decay: the weight decay of the parameters that decay according to their rule.
      clip_norm: the largest norm of the gradient over all trained parameters, to which larger
        gradients are scaled down; 0 for no clipping.
      schedule: the course of the learning rate. ``polynomial`` is
        (lr − end_value)·(1 − step/steps)^power + end_value, as in the papers; ``cosine`` is half a
        period down to end_value; or ``constant``.
      power: the power of the polynomial schedule.
      end_value: the learning rate at the end of a polynomial or cosine schedule.
      warmup_steps: the number of first steps in which the learning rate is also scaled by a factor
        that rises linearly to 1.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    schedule: Literal["polynomial", "cosine", "constant"] = "polynomial"
    power: float = 0.9
    end_value: float = 0.0
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range, or has no effect on this optimizer.
        """
        super().__post_init__()
        numbers = ("lr", "eps", "weight_decay", "clip_norm", "power", "end_value", "warmup_steps")
        check_limits(self, **dict.fromkeys(numbers, (0, math.inf)))
        check_shares(self, "momentum", "b1", "b2")
        if self.name == "adamw" and (self.momentum or self.nesterov):
            raise UserError(
                f"expected no momentum with adamw, found {self.momentum:g}: set momentum to 0, and"
                " use b1 and b2"
            )
        if self.nesterov and not self.momentum:
            raise UserError("expected momentum above 0 with nesterov, found 0: set momentum")

    def rate(self, steps: int) -> optax.Schedule:
        """Returns the learning rate by step, for a run of `steps`."""
        if self.schedule == "polynomial":
            main = optax.polynomial_schedule(self.lr, self.end_value, self.power, steps)
        elif self.schedule == "cosine":
            share = self.end_value / self.lr if self.lr else 0.0
            main = optax.cosine_decay_schedule(self.lr, steps, share)
        else:
            main = optax.constant_schedule(self.lr)
        if not self.warmup_steps:
            return main
        return lambda step: main(step) * jnp.minimum((step + 1) / self.warmup_steps, 1.0)

    def transformation(
        self, rules: dict[str, ParamRule], steps: int
    ) -> optax.GradientTransformation:
        """Returns the optimizer of the trained parameters by path.

        Args:
          rules: the rules of all parameters, from `assign_rules`.
          steps: the length of the run.
        """

        def decayed(params: FlatParams) -> dict[str, bool]:
            return {path: rules[path].decay for path in params}

        def multiply(updates: Any, params: Any = None) -> FlatParams:
            del params
            return {path: rules[path].lr * update for path, update in updates.items()}

        parts = [optax.clip_by_global_norm(self.clip_norm)] if self.clip_norm else []
        decay = (
            optax.add_decayed_weights(self.weight_decay, decayed)
            if self.weight_decay
            else optax.identity()
        )
        if self.name == "sgd":
            trace = optax.trace(self.momentum, self.nesterov) if self.momentum else optax.identity()
            parts += [decay, trace]
        else:
            parts += [optax.scale_by_adam(self.b1, self.b2, self.eps), decay]
        return optax.chain(
            *parts,
            optax.stateless(multiply),
            optax.scale_by_learning_rate(self.rate(steps)),
        )


def assign_rules(params: PyTree, rules: tuple[ParamRule, ...]) -> dict[str, ParamRule]:
    """Returns the rule of each parameter by path, the first whose pattern is found in the path.

    Raises:
      ValueError: no rule matches a parameter.
    """
    assigned: dict[str, ParamRule] = {}
    for path in traverse_util.flatten_dict(params, sep="/"):
        rule = next((rule for rule in rules if re.search(rule.pattern, path)), None)
        if rule is None:
            raise ValueError(f"no rule matches the parameter {path}")
        assigned[path] = rule
    return assigned


def split_frozen(params: PyTree, rules: dict[str, ParamRule]) -> tuple[FlatParams, FlatParams]:
    """Splits parameters into (trainable, frozen) ones by path; `join` is the inverse."""
    flat = traverse_util.flatten_dict(params, sep="/")
    trainable = {path: value for path, value in flat.items() if not rules[path].frozen}
    frozen = {path: value for path, value in flat.items() if rules[path].frozen}
    return trainable, frozen


def join(trainable: FlatParams, frozen: FlatParams) -> PyTree:
    """Joins the two parts of `split_frozen` into a nested tree."""
    return traverse_util.unflatten_dict({**trainable, **frozen}, sep="/")


def parameter_counts(trainable: FlatParams, frozen: FlatParams) -> dict[str, dict[str, int]]:
    """Returns the numbers of ``trained`` and ``frozen`` values by part of the network.

    Parts are the modules of the network, such as ``backbone``.
    """
    counts: dict[str, dict[str, int]] = {}
    for kind, values in (("trained", trainable), ("frozen", frozen)):
        for path, value in values.items():
            part = counts.setdefault(path.partition("/")[0], {"trained": 0, "frozen": 0})
            part[kind] += int(value.size)
    return counts


def parameter_count(params: PyTree) -> int:
    """Returns the number of values in a tree of arrays (or of their shapes)."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(params))
