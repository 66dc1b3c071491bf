"""Shows the progress of long work: a bar on a terminal, or else a line every few seconds."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

from wsss_jax import console

_LINE_EVERY = 10.0  # seconds between plain lines


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
            self._bar = tqdm(total=total, desc=label, unit=unit, initial=initial, smoothing=0.1)

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
            speed = f", {rate:.1f} {self._unit}/s, {_clock(seconds)} left"
        extra = "".join(f", {k} {v}" for k, v in shown.items())
        print(
            f"{self._label}: {self._done}/{self._total} {self._unit}{speed}{extra}",
            file=sys.stderr,
            flush=True,
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
