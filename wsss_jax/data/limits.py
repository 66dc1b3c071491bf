"""Checks that settings lie within their limits."""

import math
from typing import Any

from wsss_jax.errors import UserError

COLORS = {
    **dict.fromkeys(("brightness", "contrast", "saturation"), (0.0, math.inf)),
    "hue": (0.0, 0.5),
    **dict.fromkeys(("jitter_p", "grayscale_p"), (0.0, 1.0)),
}
"""The limits of the settings that change colors."""


def check_limits(settings: Any, **limits: tuple[int | float, int | float]) -> None:
    """Checks settings, by their names, against a lowest and a highest allowed value.

    Raises:
      UserError: a value is outside of its limits.
    """
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            bounds = "..".join(str(n) if isinstance(n, int) else f"{n:g}" for n in (low, high))
            raise UserError(f"expected {name} in {bounds}, found {value:g}")


def check_range(settings: Any, name: str, highest: float = math.inf) -> None:
    """Checks that a setting is a pair of values that form a range above zero.

    Raises:
      UserError: the two values are not 0 < low <= high, or high exceeds `highest`.
    """
    low, high = getattr(settings, name)
    if not 0 < low <= high <= highest:
        limit = "" if highest == math.inf else f" <= {highest:g}"
        raise UserError(f"expected 0 < low <= high{limit} in {name}, found ({low:g}, {high:g})")
