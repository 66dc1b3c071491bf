"""Collects requests to stop, so that a run finishes its step and saves before it ends."""

import functools
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool

from wsss_jax import console, interrupts
from wsss_jax.ops.sharding import replicated, sharded

_BEFORE = "stopping; what is finished is kept (a second Ctrl-C stops at once)"
_ALONE = "stopping when the steps under way are finished and saved"
_TOGETHER = "stopping after the next step on which all processes agree, which is saved"
_SECOND = " (a second Ctrl-C stops at once, without the steps since the last checkpoint)"


class StopRequests:
    """The signals that ask to stop.

    Several processes must stop after the same step. They ask each other with a small program on
    the devices of `mesh`, whose answer is read when those of the steps before are.
    """

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._signals: list[str] = []
        self._agreed = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: a second SIGINT ends the process, others are only noted."""
        del frame
        if self._signals and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signals.append(signal.Signals(number).name)

    def finish_steps(self) -> None:
        """Lets requests wait for steps from now on: before the first, there is nothing to save."""
        interrupts.be_patient()
        _answer_with((_ALONE if jax.process_count() == 1 else _TOGETHER) + _SECOND)

    def ask(self) -> Bool[Array, ""] | None:
        """Asks all processes without waiting for the answer; None if there is only this one."""
        if jax.process_count() == 1:
            return None
        own = np.full(len(self._mesh.local_devices), bool(self._signals))
        return _any(self._mesh)(jax.make_array_from_process_local_data(sharded(self._mesh), own))

    def hear(self, answer: Bool[Array, ""]) -> None:
        """Waits for the answer to `ask`."""
        self._agreed |= bool(answer)

    @property
    def agreed(self) -> str:
        """The signal after which all processes stop, or ""."""
        if jax.process_count() == 1:
            return self._signals[0] if self._signals else ""
        return "a signal" if self._agreed else ""


def _answer_with(line: str) -> None:
    interrupts.answer_with("" if console.is_quiet() else line)


@functools.cache
def _any(mesh: Mesh) -> Any:
    return jax.jit(jnp.any, out_shardings=replicated(mesh))


@contextmanager
def stop_requests(mesh: Mesh) -> Iterator[StopRequests]:
    """Collects SIGINT and SIGTERM instead of ending; a second SIGINT does end."""
    requests = StopRequests(mesh)
    try:
        before = {n: signal.signal(n, requests.note) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # This is not the main thread, so others handle the signals.
        yield requests
        return
    try:
        _answer_with(_BEFORE)
        yield requests
    finally:
        interrupts.be_patient(False)
        interrupts.answer_with("")
        for number, handler in before.items():
            signal.signal(number, handler)
