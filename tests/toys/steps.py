"""A method's loss as a function of what it may be differentiated by."""

from collections.abc import Callable
from typing import Any

from wsss_jax.methods.base import Method, Step


def loss_function(method: Method) -> Callable[..., Any]:
    """``(params, model_state, batch, rng, step, extra=()) -> (loss, aux)`` of a method."""

    def loss(params, model_state, batch, rng, step, extra=()):
        return method.loss(
            Step(
                params=params,
                model_state=model_state,
                extra=extra,
                batch=batch,
                rng=rng,
                step=step,
            )
        )

    return loss
