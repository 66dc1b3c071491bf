"""Ends the processes of a run if one of them makes no progress in the middle of a stage.

Between stages, processes wait for each other for a limited time (see `process.Barrier`). In a step
of a training, however, devices wait for those of the other processes as long as these live, even
if one of them hangs, for example because its file system does. A thread of every process therefore
tells the others how far it has come. One that has not come further for a limited time names those
that have come least far, and all processes end.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from orbax.checkpoint import multihost

from wsss_jax import progress
from wsss_jax.pipeline.guardian import START_AGAIN, leave

_MOST_SECONDS, _SHARE = 5.0, 1 / 20  # between two looks, the latter of the whole time
_OVER = "over"


@contextlib.contextmanager
def watched(stage: str, minutes: float) -> Iterator[None]:
    """Watches the block, in which all processes of a run do a stage.

    If this process does not come further for so many minutes (see `progress.come_further`), it ends
    with status `guardian.LOST` and a line that names the processes that hang, and so do the others
    that wait for them.
    """
    if jax.process_count() == 1:
        yield
        return
    over = threading.Event()
    threading.Thread(target=_watch, args=(stage, minutes, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(stage: str, minutes: float, over: threading.Event) -> None:
    client: Any = multihost.get_jax_distributed_client()
    folder, verdict = f"wsss_jax/{stage}/come_to/", f"wsss_jax/{stage}/hangs"
    look = min(_MOST_SECONDS, 60 * minutes * _SHARE)
    place, since = -1, time.monotonic()
    before: dict[str, str] = {}  # where all were when half of the time was over
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # Another process has been lost.
        while not over.wait(look):
            if (progress.place(), progress.since()) > (place, since):
                place, since, before = progress.place(), max(since, progress.since()), {}
                client.key_value_set(f"{folder}{jax.process_index()}", str(place), True)
                continue
            waited = time.monotonic() - since
            if waited > 60 * minutes:
                now = dict(client.key_value_dir_get(folder))
                names = ", ".join(_hanging(before, now))
                whose = f"process {names}" if names else "any"
                message = (
                    f"error: expected all {jax.process_count()} processes to come further in"
                    f" {stage} within {minutes:g} minutes, found no progress of {whose}:"
                    f" {START_AGAIN}; --wait_minutes changes the time"
                )
                client.key_value_set(verdict, message, True)
            elif waited > 30 * minutes and not before:
                before = dict(client.key_value_dir_get(folder))
            if waited > 2 * look and (message := _read(client, verdict)):
                # The first process, which the others ask, ends after they have had the time to.
                leave(message, (3 if jax.process_index() else 6) * look)
        client.key_value_set(f"{folder}{jax.process_index()}", _OVER, True)


def _hanging(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Returns which processes have come least far of those that have not come further.

    There are none if all have come as far.
    """
    places = {
        name.rpartition("/")[2]: int(place)
        for name, place in now.items()
        if place != _OVER and before.get(name) == place
    }
    least = min(places.values(), default=0)
    found = sorted(name for name, place in places.items() if place == least)
    return [] if len(found) == len(now) else found


def _read(client: Any, key: str) -> str:
    try:
        return client.key_value_try_get(key)
    except jax.errors.JaxRuntimeError:  # There is none.
        return ""
