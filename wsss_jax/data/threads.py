"""Threads for work on files, one per core."""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


@contextlib.contextmanager
def thread_pool() -> Iterator[ThreadPoolExecutor]:
    """A thread per core. An exception, Ctrl-C too, drops the work that has not begun."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
