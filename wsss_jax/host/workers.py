"""Pools of processes that share the work on many files, for code that threads cannot speed up.

Processes are spawned and not forked, because a fork of a process that runs JAX may hang. They only
import the module of their function, so they start in half a second if it does not import JAX.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process, resource_tracker
from typing import Any

import cv2
from threadpoolctl import threadpool_limits

from wsss_jax.errors import UserError
from wsss_jax.host.host_memory import free_memory, keep_freed_memory

_SHARE = 0.8  # of free memory, which others need as well
_PROCESS_BYTES = 150 << 20  # a process that does nothing yet


def timed(function: Callable[..., object], *arguments: object) -> float:
    """Calls `function` and returns the seconds that it took."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def worker_count(setting: int, tasks: int) -> int:
    """Returns how many processes to use, which is never more than there are `tasks`.

    This is `setting`, or one for each core that this process may use if `setting` is 0.

    Raises:
      UserError: the setting is negative.
    """
    if setting < 0:
        raise UserError(f"expected a number of workers, or 0 for all cores, found {setting}")
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(min(setting or cores, tasks), 1)


def fitting_workers(workers: int, each: int) -> int:
    """Returns how many of `workers` processes of `each` bytes fit into free memory, at least 1."""
    free = free_memory()
    if free is None or each <= 0:
        return workers
    return max(min(workers, int(_SHARE * free) // (each + _PROCESS_BYTES)), 1)


def fitting_note(fitting: int, workers: int, each: int) -> str:
    """Returns a sentence on how many of `workers` processes of `each` bytes fit."""
    free = free_memory() or 0
    return (
        f"{fitting} of {workers} processes work at once, because each needs up to"
        f" {each / 2**30:.1f} GiB for the largest image, and {free / 2**30:.1f} GiB are free"
    )


@contextlib.contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yields a pool of processes for functions of modules.

    An exception, including Ctrl-C, cancels the work that has not begun.

    Raises:
      UserError: a process was killed, as happens when memory runs out.
    """
    _start_tracker()
    pool = _Pool(workers, get_context("spawn"), _begin)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise UserError(
            f"expected {workers} processes to finish, found that one was killed, as happens when"
            " memory runs out: use fewer workers and run the same command again; finished work is"
            " kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


class _Pool(ProcessPoolExecutor):
    """A pool whose processes never get Ctrl-C, not even while they start.

    It reaches all processes of a terminal, but only the first process decides what to do.
    """

    def submit(self, *arguments: Any, **named: Any) -> Any:
        """Submits work, for which a process may start; it inherits the blocked signal."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(*arguments, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker() -> None:
    """Starts the process that frees semaphores of killed processes, without its warning."""
    name, quiet = "PYTHONWARNINGS", "ignore:resource_tracker"
    before = os.environ.get(name)
    os.environ[name] = f"{before},{quiet}" if before else quiet
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _begin() -> None:
    cv2.setNumThreads(1)
    threadpool_limits(1)  # of BLAS
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A process that waits for tasks does not notice when its parent is gone.
    parent = parent_process()
    if parent is not None:
        with contextlib.suppress(OSError):
            connection.wait([parent.sentinel])
        os._exit(1)
