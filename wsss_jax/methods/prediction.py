"""The compiled function with which a method's network predicts, on all devices."""

from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from wsss_jax.methods.base import Method
from wsss_jax.ops.sharding import replicated, sharded, traced_for

FEATURES = "features"
"""The prediction that every method has beside its `outputs`: `Method.features`."""


def prediction(method: Method, output: str, mesh: Mesh) -> Any:
    """Returns the jitted function ``(weights, images, valid) -> maps`` of a network on `mesh`."""

    def outputs(weights: PyTree, images: Array, valid: Array) -> Array:
        if output == FEATURES:
            return method.features(weights, images, valid)
        return method.predict(weights, images, valid)[output]

    placement = sharded(mesh)
    return jax.jit(
        traced_for(mesh, outputs),
        in_shardings=(replicated(mesh), placement, placement),
        out_shardings=placement,
    )


def prediction_stride(method: Method, output: str) -> int:
    """Returns the image pixels per pixel of the prediction `output`."""
    return method.backbone.tap_strides["conv6"] if output == FEATURES else method.stride(output)
