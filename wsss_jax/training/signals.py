"""Collects requests to stop, so that a run finishes its step and saves before it ends."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils


@contextmanager
def stop_requests() -> Iterator[list[str]]:
    """Collects the names of SIGINT and SIGTERM instead of ending; a second SIGINT does end."""
    requests: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if requests and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.append(signal.Signals(number).name)

    try:
        before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # This is not the main thread, so others handle the signals.
        yield requests
        return
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def agreed(requests: list[str], ask: bool) -> str:
    """Returns the signal that requests a stop, or "", with the same answer on all processes.

    Several processes only ask each other if `ask` is set, because that costs a round trip.
    """
    if jax.process_count() == 1:
        return requests[0] if requests else ""
    if not ask:
        return ""
    anyone = multihost_utils.process_allgather(np.asarray(bool(requests)))
    return "a signal" if bool(np.any(anyone)) else ""
