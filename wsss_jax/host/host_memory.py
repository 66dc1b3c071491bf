"""Keeps freed memory in the process, for CPU devices.

XLA asks for a step's working memory in one large block and gives it back after the step. The C
library passes blocks of that size straight to the kernel, so every step would fault in, zeroed, a
gigabyte of pages again: a tenth to a third of the step's time, and more after a pause, as virtual
machines may return free pages to their host.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # from <malloc.h>


def share_one_heap() -> bool:
    """Lets threads that start from now on share the process's heap; False without glibc.

    A thread's own heap has no room for blocks above 64 MiB: they come from the kernel one by one,
    whatever `keep_freed_memory` says. To be called before JAX starts its threads.
    """
    return _set((_M_ARENA_MAX, 1))


def keep_freed_memory() -> bool:
    """Tells glibc to reuse large freed blocks; False where the C library is another one."""
    return share_one_heap() and _set(
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, -1),  # never
        (_M_TOP_PAD, 64 << 20),
    )


def _set(*options: tuple[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, value) for option, value in options)
