"""Freed memory stays in the process: what is asked for again costs no page faults."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, statistics, sys, threading
from wsss_jax.host.host_memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def round_():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(100 << 20)
    ctypes.memset(block, 1, 100 << 20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def rounds():
    # The kernel may move pages meanwhile, which are then faults as well, but not in most rounds.
    print(statistics.median([round_() for _ in range(10)][3:]))

if sys.argv[2] == "thread":
    thread = threading.Thread(target=rounds)
    thread.start()
    thread.join()
else:
    rounds()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is meant")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_blocks_are_reused(where: str):
    def faults(setting: str) -> int:
        command = [sys.executable, "-c", PROGRAM, setting, where]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    # A block of 100 MiB has 25,600 pages of 4 KiB, or 50 of 2 MiB.
    assert faults("keep") < 5 < faults("leave")
