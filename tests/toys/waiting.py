"""Waiting for what other processes and threads do, however busy the machine is."""

import time
from collections.abc import Callable
from pathlib import Path

LONG = 300
"""Seconds after which a test gives up. Waiting ends at once when there is something to see."""


def until(condition: Callable[[], object], going_on: Callable[[], object] = lambda: True) -> None:
    """Waits until a condition holds; fails after `LONG` seconds, or if `going_on` does not hold."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert going_on() or condition(), "what was waited for has ended before"
        assert time.monotonic() < deadline, f"nothing has happened for {LONG} seconds"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended; only on Linux."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # It may disappear while its file is read.
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"  # zombies, which nobody has waited for
