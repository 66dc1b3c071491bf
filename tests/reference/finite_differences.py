"""Gradients of parameters against slopes of the loss along them."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp


def check_slopes(
    loss: Callable[[Any], float], params: Any, gradient: Any, paths: Iterable[tuple[str, ...]]
) -> None:
    """Moves one kernel after the other along its gradient, whose length the loss has to rise by.

    Two step sizes are tried, for a small one drowns in rounding and a large one meets kinks.
    """
    for path in paths:
        slope = gradient
        for name in path:
            slope = slope[name]
        expected = float(jnp.linalg.norm(slope["kernel"]))
        direction = slope["kernel"] / expected

        def value(amount: float, path: Any = path, direction: Any = direction) -> float:
            def change(where: Any, leaf: jax.Array) -> jax.Array:
                same = [k.key for k in where] == [*path, "kernel"]
                return leaf + amount * direction if same else leaf

            return loss(jax.tree_util.tree_map_with_path(change, params))

        found = [(value(s) - value(-s)) / (2 * s) for s in (3e-4, 3e-3)]
        error = min(abs(f - expected) for f in found)
        assert error < 0.01 * expected, (path, expected, found)
