"""Estimates the arithmetic and memory of a training step from shapes alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.extend.core import Var
from jaxtyping import PyTree

from wsss_jax.methods.base import Method, Step
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.training.optimizer import (
    OptimizerSettings,
    assign_rules,
    join,
    parameter_count,
    split_frozen,
)


@dataclasses.dataclass(frozen=True)
class StepCost:
    """The cost of a training step, with memory in bytes over all devices.

    Attributes:
      trainable: the number of parameters that learn.
      frozen: the number of parameters that do not learn.
      flops: the floating-point operations of loss and gradient, as XLA counts them before
        optimization.
      parameters: the memory of all parameters and other variables.
      gradients: the memory of the gradients.
      optimizer: the memory of the optimizer's state.
      activations: the memory of the arrays of the forward pass that the backward pass needs, each
        counted once.
    """

    trainable: int
    frozen: int
    flops: float
    parameters: int
    gradients: int
    optimizer: int
    activations: int

    def lines(self) -> list[str]:
        """Returns lines of text about the cost, for a dry run."""
        memory = {
            "parameters": self.parameters,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "activations": self.activations,
        }
        parts = " + ".join(f"{name} {_gib(value)}" for name, value in memory.items())
        shared = self.activations - self.activations // jax.device_count()
        return [
            f"parameters   {self.trainable:,} trained, {self.frozen:,} frozen",
            f"FLOPs        {self.flops / 1e9:,.1f} G per step (loss and gradient, counted by XLA)",
            f"memory       up to {_gib(sum(memory.values()) - shared)} per device in a step:"
            f" {parts} (every array that the backward pass needs, once; compiled programs keep"
            " fewer)",
        ]


def step_cost(
    method: Method, optimizer: OptimizerSettings, batch: Mapping[str, jax.ShapeDtypeStruct]
) -> StepCost:
    """Estimates the cost of a training step from shapes alone.

    Args:
      method: the method to train.
      optimizer: the settings of the optimizer.
      batch: the shapes of the arrays of a batch; see `BatchSpec.shapes`.
    """
    params, variables = variable_shapes(method)
    rules = assign_rules(params, method.param_rules())
    trainable, frozen = jax.eval_shape(lambda p: split_frozen(p, rules), params)
    extra = jax.eval_shape(method.init_extra, params)
    opt_state = jax.eval_shape(optimizer.transformation(rules, 1).init, trainable)
    rng = jax.eval_shape(jax.random.key, 0)
    step = jax.ShapeDtypeStruct((), jnp.int32)

    def gradient(trainable, frozen, variables, extra, batch, rng, step):
        def loss(trainable):
            return method.loss(
                Step(
                    params=join(trainable, frozen),
                    model_state=variables,
                    extra=extra,
                    batch=batch,
                    rng=rng,
                    step=step,
                )
            )[0]

        value, backward = jax.vjp(loss, trainable)
        # The backward function is a tree of the arrays that it needs from the forward pass.
        return jax.tree.leaves(backward), backward(jnp.ones_like(value))

    arguments = (trainable, frozen, variables, extra, batch, rng, step)
    traced = jax.jit(gradient).trace(*arguments)
    # The step is always lowered as for a GPU, because XLA counts the body of a loop only once, and
    # our layers for CPUs have loops.
    analysis = traced.lower(lowering_platforms=("cuda",)).cost_analysis() or {}
    program, count = traced.jaxpr.jaxpr, len(traced.out_info[0])
    given = {*program.invars, *program.constvars}
    kept = {v for v in program.outvars[:count] if isinstance(v, Var) and v not in given}
    return StepCost(
        trainable=parameter_count(trainable),
        frozen=parameter_count(frozen),
        flops=float(analysis.get("flops", 0.0)),
        parameters=_bytes((params, variables, extra)),
        gradients=_bytes(trainable),
        optimizer=_bytes(opt_state),
        activations=_bytes([v.aval for v in kept]),
    )


def describe_step(
    method: Method, optimizer: OptimizerSettings, batch: Mapping[str, jax.ShapeDtypeStruct]
) -> list[str]:
    """Returns lines about the optimizer, its parameter groups and the cost; see `step_cost`."""
    return [
        f"optimizer    {optimizer.name}, lr {optimizer.lr:g}, schedule {optimizer.schedule},"
        f" momentum {optimizer.momentum:g}, weight decay {optimizer.weight_decay:g}",
        *_parameter_groups(method, optimizer.lr),
        *step_cost(method, optimizer, batch).lines(),
    ]


def _parameter_groups(method: Method, lr: float) -> list[str]:
    params, _ = variable_shapes(method)
    rules = assign_rules(params, method.param_rules())
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    groups: dict[str, int] = {}
    for path, rule in rules.items():
        decay = "" if rule.decay else ", no weight decay"
        name = "frozen" if rule.frozen else f"lr {lr * rule.lr:g} (x{rule.lr:g}){decay}"
        groups[name] = groups.get(name, 0) + int(flat[path].size)
    return [f"  {name}: {count:,} parameters" for name, count in groups.items()]


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.1f} MiB"
