"""Pools of threads for work on files, with one thread per core."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def thread_count() -> int:
    """Returns the number of threads in a `thread_pool`."""
    return min(os.cpu_count() or 1, 16)


@contextlib.contextmanager
def thread_pool() -> Iterator[ThreadPoolExecutor]:
    """Yields a pool with one thread per core.

    An exception, including Ctrl-C, cancels the work that has not begun. While the pool is open,
    products of NumPy's matrices run on a single thread. Otherwise each of them would wait for all
    cores, which are busy with the other threads and with XLA's.
    """
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(thread_count()) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def ahead(
    pool: Executor, function: Callable[[Item], Result], groups: Iterable[Iterable[Item]], depth: int
) -> Iterator[list[Result]]:
    """Yields what `function` returns for the items of each group, in order.

    While the caller works on a group, the pool works on the `depth` groups that follow.
    """
    begun: deque[list[Future[Result]]] = deque()
    for group in groups:
        begun.append([pool.submit(function, item) for item in group])
        if len(begun) > depth:
            yield [future.result() for future in begun.popleft()]
    while begun:
        yield [future.result() for future in begun.popleft()]
