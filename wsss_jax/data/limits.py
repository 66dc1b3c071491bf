"""Refusals of settings that are out of their range."""

import math
from typing import Any

from wsss_jax.errors import UserError

COLORS = {
    **dict.fromkeys(("brightness", "contrast", "saturation"), (0.0, math.inf)),
    "hue": (0.0, 0.5),
    **dict.fromkeys(("jitter_p", "grayscale_p"), (0.0, 1.0)),
}
"""Limits of the settings of changes of colors."""


def check_limits(settings: Any, **limits: tuple[int | float, int | float]) -> None:
    """Refuses values beyond the lowest or the highest one that is allowed, by their names.

    Raises:
      UserError: see above.
    """
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            bounds = "..".join(str(n) if isinstance(n, int) else f"{n:g}" for n in (low, high))
            raise UserError(f"expected {name} in {bounds}, found {value:g}")


def check_range(settings: Any, name: str, highest: float = math.inf) -> None:
    """Refuses a pair of values that is no range above zero.

    Raises:
      UserError: see above.
    """
    low, high = getattr(settings, name)
    if not 0 < low <= high <= highest:
        limit = "" if highest == math.inf else f" <= {highest:g}"
        raise UserError(f"expected 0 < low <= high{limit} in {name}, found ({low:g}, {high:g})")
