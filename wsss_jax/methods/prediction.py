"""The compiled function with which a method's network predicts, on all devices."""

from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from wsss_jax.methods.base import Method
from wsss_jax.ops.sharding import replicated, sharded, traced_for


def prediction(method: Method, output: str, mesh: Mesh) -> Any:
    """Returns the jitted function ``(weights, images, valid) -> maps`` of a network on `mesh`."""

    def outputs(weights: PyTree, images: Array, valid: Array) -> Array:
        return method.predict(weights, images, valid)[output]

    placement = sharded(mesh)
    return jax.jit(
        traced_for(mesh, outputs),
        in_shardings=(replicated(mesh), placement, placement),
        out_shardings=placement,
    )
