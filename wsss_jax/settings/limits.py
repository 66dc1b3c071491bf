"""Checks that the values of settings lie within their limits.

A setting that is a tuple is within its limits if each of its numbers is.
"""

import math
from collections.abc import Callable
from typing import Any

from wsss_jax.errors import UserError


def check_limits(settings: Any, **limits: tuple[int | float, int | float]) -> None:
    """Checks settings, by their names, against a lowest and a highest allowed value.

    Raises:
      UserError: a value is outside of its limits.
    """
    for name, (low, high) in limits.items():
        words = f"of {low} or more" if high == math.inf else f"from {low} to {high}"
        _check(settings, name, words, lambda value, low=low, high=high: low <= value <= high)


def check_positive(settings: Any, *names: str) -> None:
    """Checks that settings are above 0.

    Raises:
      UserError: a value is not.
    """
    for name in names:
        _check(settings, name, "above 0", lambda value: value > 0)


def check_shares(settings: Any, *names: str) -> None:
    """Checks that settings are shares below 1, such as the rate of a dropout or of a decay.

    Raises:
      UserError: a value is below 0, or is 1 or more.
    """
    for name in names:
        _check(settings, name, "from 0 to below 1", lambda value: 0 <= value < 1)


def check_range(settings: Any, name: str, highest: float = math.inf) -> None:
    """Checks that a setting is a pair of values that form a range above zero.

    Raises:
      UserError: the two values are not 0 < low <= high, or high exceeds `highest`.
    """
    low, high = getattr(settings, name)
    if not 0 < low <= high <= highest:
        limit = "" if highest == math.inf else f" <= {highest:g}"
        raise UserError(
            f"expected 0 < low <= high{limit} in {name}, found ({low:g}, {high:g}): change it"
        )


def _check(settings: Any, name: str, words: str, fits: Callable[[Any], bool]) -> None:
    found = getattr(settings, name)
    if not all(map(fits, found if isinstance(found, tuple) else (found,))):
        raise UserError(f"expected {name} {words}, found {found}: change it")
