"""Ends a command on request, whatever it is doing: one line, and nothing that is finished is lost.

Python calls handlers of signals between two of its own instructions, and so not while a program is
being compiled, which takes minutes. A thread therefore learns of a signal at once. It ends the
process if the main thread has not done so after `GRACE_SECONDS`, or at a second Ctrl-C. This loses
no more than a kill does: files appear whole or not at all, and the same command goes on. Where the
main thread takes longer on purpose, the thread says so at the first request.

The imports of this module are few and small, because signals that come before `begin` end the
process without a line.
"""

import math
import os
import select
import signal
import threading
import time
from types import FrameType

TYPE_CHECKING = False  # that of `typing`, whose import takes as long as all others
if TYPE_CHECKING:
    from typing import NoReturn

GRACE_SECONDS = 15
"""How long the main thread has to end after a request. Clusters grant 30 seconds or more."""

STATUS = 130
"""The exit status of a command that was interrupted."""

_ASKING = (signal.SIGINT, signal.SIGTERM)
_FINISHED = 0  # the number of no signal


class _Watch:
    """The state of this process; a signal handler may change it at any time."""

    def __init__(self) -> None:
        self.started = False
        self.raising = False
        self.patient = False
        self.asked = 0
        self.ending = threading.Lock()
        self.bell = -1  # a file descriptor
        self.answer = ""
        self.line = "interrupted"
        self.status = STATUS


_watch = _Watch()


def begin() -> None:
    """Starts to watch for SIGINT and SIGTERM, which end the process at once until `tell` is called.

    The program calls it in the main thread before it imports libraries, which takes seconds, and
    during which there is nothing to save.
    """
    if _watch.started:
        return
    _watch.started = True
    for number in _ASKING:
        signal.signal(number, _handle)
    heard, _watch.bell = os.pipe()
    os.set_blocking(_watch.bell, False)
    signal.set_wakeup_fd(_watch.bell, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(heard,), daemon=True).start()


def watching() -> bool:
    """Returns whether requests end this process even if the main thread loses them."""
    return _watch.started


def tell(line: str, status: int) -> None:
    """Sets the line that is printed if the process is ended from here, and its exit status.

    SIGINT and SIGTERM raise KeyboardInterrupt from now on.
    """
    _watch.line, _watch.status, _watch.raising = line, status, True


def be_patient(patient: bool = True) -> None:
    """Sets whether the main thread may take its time after a request.

    A training that has done steps finishes the present one and saves them, however long that takes.
    """
    _watch.patient = patient


def answer_with(line: str) -> None:
    """Sets a line that is printed at the first request, whatever the main thread does; "" for none.

    Work that ends later than at once says with it what it still does.
    """
    _watch.answer = line


def finish(status: int) -> None:
    """Ignores requests while the interpreter shuts down, which takes `GRACE_SECONDS` at most.

    Otherwise Python would restore what signals do by default, and they would change the status.
    """
    if _watch.started:
        tell("", status)  # The command has said what there was to say.
        be_patient(False)
        answer_with("")
        for number in _ASKING:
            signal.signal(number, signal.SIG_IGN)
        os.write(_watch.bell, bytes([_FINISHED]))


def _handle(number: int, frame: FrameType | None) -> None:
    _watch.asked += 1
    if not _watch.raising or (_watch.asked > 1 and number == signal.SIGINT):
        _end()
    raise KeyboardInterrupt


def _wait(heard: int) -> None:
    asked: list[int] = []
    deadline = math.inf
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            if not _watch.patient:
                _end()
            left = GRACE_SECONDS
            deadline = time.monotonic() + left
        if not select.select([heard], [], [], None if left == math.inf else left)[0]:
            continue
        received = os.read(heard, 64)
        numbers = [number for number in received if number in _ASKING]
        again = numbers.count(signal.SIGINT) + (signal.SIGINT in asked) > 1
        is_first = bool(numbers) and not asked
        # Further requests do not prolong the grace; the shutdown has a grace of its own.
        if is_first or _FINISHED in received:
            deadline = time.monotonic() + GRACE_SECONDS
        asked += numbers
        if again:
            _end()
        if is_first:
            _say(_watch.answer)


def _end() -> "NoReturn":
    _watch.ending.acquire()  # never released: another thread that comes here waits for the end
    _say(_watch.line)
    os._exit(_watch.status)


def _say(line: str) -> None:
    if line:
        below = "\n" if os.isatty(2) else ""  # a bar of progress and what the terminal shows as ^C
        # Other threads may hold the locks of Python's own streams.
        os.write(2, f"{below}{line}\n".encode(errors="replace"))
