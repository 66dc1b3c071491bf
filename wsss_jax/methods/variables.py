"""The shapes and the initial values of the variables of a method's network."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from wsss_jax.methods.base import Method


def variable_shapes(method: Method, crop: int = 64) -> tuple[PyTree, PyTree]:
    """Returns the shapes of (parameters, other variables) without computing anything.

    They do not depend on `crop`, the side of the image with which they are inferred, because
    position embeddings have a grid of their own; see `wsss_jax.models.base`.
    """
    image = jax.ShapeDtypeStruct((1, crop, crop, 3), jnp.float32)
    variables = dict(jax.eval_shape(method.model().init, jax.random.key(0), image))
    return variables.pop("params"), variables


def init_variables(method: Method, seed: int) -> tuple[PyTree, PyTree]:
    """Draws the (parameters, other variables) of the method's network from `seed`.

    Like their shapes, they do not depend on the side of an image; see `variable_shapes`.
    """

    def draw(key: PRNGKeyArray) -> PyTree:
        return method.model().init(key, jnp.zeros((1, 64, 64, 3)))

    key = jax.random.key(seed)
    # It runs once; on a CPU, optimizing dozens of random generators takes far longer than that.
    options: Any = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    variables = dict(jax.jit(draw).lower(key).compile(compiler_options=options)(key))
    return variables.pop("params"), variables
