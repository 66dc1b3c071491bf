"""The shapes and the initial values of the variables of a method's network."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from wsss_jax.methods.base import Method

_SIDE = 64  # of an image; shapes do not depend on it, see `wsss_jax.models.base`


def variable_shapes(method: Method) -> tuple[PyTree, PyTree]:
    """Returns the shapes of (parameters, other variables) without computing anything."""
    image = jax.ShapeDtypeStruct((1, _SIDE, _SIDE, 3), jnp.float32)
    variables = dict(jax.eval_shape(method.model().init, jax.random.key(0), image))
    return variables.pop("params"), variables


def init_variables(method: Method, seed: int) -> tuple[PyTree, PyTree]:
    """Draws the (parameters, other variables) of the method's network from `seed`."""

    def draw(key: PRNGKeyArray) -> PyTree:
        return method.model().init(key, jnp.zeros((1, _SIDE, _SIDE, 3)))

    key = jax.random.key(seed)
    # It runs once; on a CPU, optimizing dozens of random generators takes far longer than that.
    options: Any = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    variables = dict(jax.jit(draw).lower(key).compile(compiler_options=options)(key))
    return variables.pop("params"), variables
