"""Shows the progress of long work: a bar on a terminal, or else a line every few seconds."""

import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

from wsss_jax import console

_LINE_EVERY = 10.0  # seconds between plain lines
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{left}, {rate_fmt}{postfix}]"
_SECOND, _MINUTE, _HOUR, _DAY = 1, 60, 3600, 86400
# Up to when an expected time is a multiple of what, and the unit in which it is shown; in seconds.
_ROUNDED = (
    (_MINUTE, 10 * _SECOND, _SECOND, "s"),
    (10 * _MINUTE, _MINUTE, _MINUTE, "min"),
    (_HOUR, 5 * _MINUTE, _MINUTE, "min"),
    (10 * _HOUR, _HOUR / 2, _HOUR, "h"),
    (2 * _DAY, _HOUR, _HOUR, "h"),
    (math.inf, _DAY, _DAY, "days"),
)


_place, _since = 0, time.monotonic()


def come_further(steps: int = 1) -> None:
    """Notes that this process lives and has come further, in whatever it does.

    Args:
      steps: by how much; 0 for work that other processes may have less of.
    """
    global _place, _since
    _place, _since = _place + steps, time.monotonic()


def place() -> int:
    """Returns how far this process has come."""
    return _place


def since() -> float:
    """Returns when this process has last come further, in seconds of `time.monotonic`."""
    return _since


def about(seconds: int | float) -> str:
    """Returns a time that is expected, not measured, no more precisely than such times are known.

    It is ``less than 10 s``, ``about 20 s``, ``about 25 min``, ``about 1.5 h`` or ``about 3 days``.
    """
    if seconds < 10:
        return "less than 10 s"
    return next(
        f"about {step * round(seconds / step) / unit:g} {name}"
        for most, step, unit, name in _ROUNDED
        if step * round(seconds / step) < most
    )


class _Bar(tqdm):
    """A bar with the remaining time as `about` tells it."""

    @property
    def format_dict(self) -> Mapping[str, Any]:
        known = super().format_dict
        rate = known["rate"] or (known["n"] - known["initial"]) / max(known["elapsed"], 1e-9)
        seconds = (known["total"] - known["n"]) / rate if rate > 0 else 0
        return {**known, "left": f", {about(seconds)} left" if seconds > 0 else ""}


class Progress:
    """Counts up to `total` units and shows the rate and the remaining time.

    Use it as a context manager, and call `update(n, **figures)` when n more units are done.
    """

    def __init__(
        self, total: int, label: str, unit: str = "images", enabled: bool = True, initial: int = 0
    ):
        self._total, self._label, self._unit = total, label, unit
        self._enabled, self._shown = enabled, enabled and not console.is_quiet()
        self._done = self._initial = self._start_count = initial
        self._start = self._last = time.monotonic()
        self._bar = None
        if self._shown and sys.stderr.isatty():
            self._bar = _Bar(
                *(None, label, total),
                unit=unit,
                initial=initial,
                smoothing=0.1,
                bar_format=_BAR,
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int = 1, **figures: float | str) -> None:
        """Counts `count` more units as done and shows `figures` beside the bar."""
        come_further(count)
        if count and self._done == self._initial:
            # The first unit mostly waits for compilation, so it does not count for the rate.
            self._start, self._start_count = time.monotonic(), self._done + count
        self._done += count
        if not self._enabled:
            return
        shown = {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in figures.items()}
        if self._bar is not None:
            if shown:
                self._bar.set_postfix(shown, refresh=False)
            self._bar.update(count)
        now = time.monotonic()
        if now - self._last < _LINE_EVERY and self._done < self._total:
            return
        self._last = now
        rate = (self._done - self._start_count) / max(now - self._start, 1e-9)
        seconds = (self._total - self._done) / rate if rate else None
        known = dict(label=self._label, done=self._done, total=self._total, unit=self._unit)
        console.event("progress", **known, rate=rate, seconds_left=seconds, figures=figures)
        if self._bar is not None or not self._shown:
            return
        speed = ""
        if seconds is not None:
            left = f", {about(seconds)} left" if seconds > 0 else ""
            speed = f", {rate:.1f} {self._unit}/s{left}"
        extra = "".join(f", {k} {v}" for k, v in shown.items())
        print(
            f"{self._label}: {self._done}/{self._total} {self._unit}{speed}{extra}",
            file=sys.stderr,
            flush=True,
        )
