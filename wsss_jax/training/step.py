"""The training step over all devices, for every method."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from wsss_jax.methods.base import Method, Step
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.ops.sharding import replicated, sharded, traced_for
from wsss_jax.training.optimizer import (
    FlatParams,
    OptimizerSettings,
    assign_rules,
    join,
    split_frozen,
)
from wsss_jax.types import Batch, TrainState

_FOR_GPUS = {"xla_gpu_dot_merger_threshold_mb": 0}
"""XLA would compute the 1×1 convolutions of a step's image sizes, which share their kernels, in one
product, and copy all images side by side for it. These copies take longer than a program more."""

StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]


def init_state(
    method: Method,
    optimizer: optax.GradientTransformation,
    params: PyTree,
    variables: PyTree,
    seed: int,
    mesh: Mesh,
) -> TrainState:
    """Returns the state before the first step, replicated over the devices of `mesh`."""
    build = _first_state(method, optimizer, params, seed)
    return jax.jit(build, out_shardings=replicated(mesh))(params, variables)


def _first_state(
    method: Method, optimizer: optax.GradientTransformation, params: PyTree, seed: int
) -> Callable[[PyTree, PyTree], TrainState]:
    """Returns the function that makes the first state from (parameters, other variables)."""
    rules = assign_rules(params, method.param_rules())

    def build(params: PyTree, variables: PyTree) -> TrainState:
        trainable, _ = split_frozen(params, rules)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            model_state=variables,
            extra=method.init_extra(params),
            opt_state=optimizer.init(trainable),
            rng=jax.random.key(seed),
        )

    return build


def lower_train_step(
    method: Method,
    optimizer: OptimizerSettings,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    mesh: Mesh,
) -> jax.stages.Lowered:
    """Lowers the step of `make_train_step` from shapes alone, for devices that may not be at hand.

    Args:
      method: the method to train.
      optimizer: the settings of the optimizer.
      batch: the shapes of a global batch; see `BatchSpec.shapes`.
      mesh: the devices.
    """
    params, variables = variable_shapes(method)
    rules = assign_rules(params, method.param_rules())
    transformation = optimizer.transformation(rules, 1)
    build = _first_state(method, transformation, params, 0)
    state = jax.eval_shape(build, params, variables)
    step: Any = make_train_step(method, transformation, params, mesh)
    return step.lower(state, dict(batch))


def step_of(state: TrainState, batch: Batch, total_steps: int = 0) -> Step:
    """Returns the step that starts from `state`, for its method; see `Step`."""
    return Step(
        params=state.params,
        model_state=state.model_state,
        extra=state.extra,
        batch=batch,
        rng=jax.random.fold_in(state.rng, state.step),
        step=state.step,
        total_steps=total_steps,
    )


def make_train_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    params: PyTree,
    mesh: Mesh,
    total_steps: int = 0,
) -> StepFunction:
    """Returns the jitted step ``(state, global batch) -> (state, metrics)``, which donates `state`.

    Only the paths of `params` are used. `total_steps` is the length of the training, which methods
    may ask for; 0 if it is unknown. The gradient is not taken with respect to frozen
    parameters, so nothing is computed or kept for them. Every method is a pure function of the
    global batch. If the batch is sharded over the mesh, the compiler inserts the reductions that
    `jax.pmap` would need explicitly.
    """
    rules = assign_rules(params, method.param_rules())

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        step = step_of(state, batch, total_steps)
        trainable, frozen = split_frozen(state.params, rules)

        def loss_of(trainable: PyTree):
            params = join(_with_kernels_of(jnp.dtype(method.dtype), {**trainable, **frozen}), {})
            return method.loss(step.replace(params=params))  # pyright: ignore

        (loss, aux), grads = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        updates, opt_state = optimizer.update(grads, state.opt_state, trainable)
        params = join(optax.apply_updates(trainable, updates), frozen)  # pyright: ignore
        left = step.replace(  # pyright: ignore[reportAttributeAccessIssue]
            model_state=step.model_state if aux.model_state is None else aux.model_state,
            extra=step.extra if aux.extra is None else aux.extra,
        )
        new = TrainState(
            step=state.step + 1,
            params=params,
            model_state=left.model_state,
            extra=method.after_step(left, params),
            opt_state=opt_state,
            rng=state.rng,
        )
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        terms = {f"loss/{name}": value for name, value in aux.terms.items() if name != "loss"}
        return new, metrics | terms

    placed = replicated(mesh)
    return jax.jit(
        traced_for(mesh, train_step),
        in_shardings=(placed, sharded(mesh)),
        out_shardings=placed,
        donate_argnums=0,
        compiler_options=_FOR_GPUS if mesh.devices.flat[0].platform == "gpu" else None,
    )


def _with_kernels_of(dtype: jnp.dtype, params: FlatParams) -> FlatParams:
    """Casts the kernels of convolutions to the type in which they are used, once per step.

    A kernel that is used for several images of a step (SEAM's two sizes) then gets the sum of its
    gradients in this type. The devices exchange this sum, and not one gradient per use.
    """
    return {
        path: value.astype(dtype) if path.endswith("/kernel") and value.ndim == 4 else value
        for path, value in params.items()
    }
