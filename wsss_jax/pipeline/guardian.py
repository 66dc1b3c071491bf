"""Watches over one of several processes of a run, and says in one line when another one is lost.

If a process of a run disappears, JAX ends the others from C++, with pages of messages that do not
say what to do. So a process that joins others runs as the child of a small one, which passes
signals on to it, keeps such messages back, and ends with it. Python's own messages reach the
terminal directly.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence
from types import FrameType
from typing import Any, NoReturn

LOST = 3
"""The exit status of a process that has lost another one."""

HEARTBEAT_SECONDS = 30
"""After this time without a sign of life, a process counts as lost."""

START_AGAIN = (
    "see its messages, then start all processes again with the same command (finished work is kept)"
)
"""What to do if another process is lost or late."""

_STDERR = "WSSS_JAX_GUARDED_STDERR"
_SAID = "wsss_jax has said why it ends\n"  # to the guardian, before JAX may end the process
_OF_LOST = re.compile(
    r"Gloo|coordination.?service|CoordinationService|preemption_sync_manager|heartbeat"
    r"|distributed service|Socket closed"
)
_LATE = re.compile(r"(\d+)\s*")  # what follows the list of processes without a sign of life
# Process 0 answers these calls. That there is no answer is told in the line before.
_CALL = re.compile(r"RPC: \S+/(Heartbeat|PollForError)")
_NO_ANSWER = re.compile(r"DEADLINE_EXCEEDED|Socket closed|failed to connect|Connection re")
_leaving = threading.Lock()
_has_guardian = False
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_PDEATHSIG = 1


def tells_of_lost_process(message: str) -> bool:
    """Returns whether a message of JAX or XLA is about a process that was lost."""
    return _OF_LOST.search(message) is not None


def lost_message(processes: Collection[int] = ()) -> str:
    """Returns the line that says that other processes were lost, which may not be known."""
    names = " and ".join(map(str, sorted(processes)))
    who = f"process {names}" if names else "another process"
    verb = "have" if len(processes) > 1 else "has"
    return f"error: {who} of this run {verb} ended or cannot be reached: {START_AGAIN}"


def leave(message: str, seconds: float = 0) -> NoReturn:
    """Ends this process; doing so in good order would wait for the one that is lost.

    Args:
      message: a line that is printed, unless another thread has already printed one.
      seconds: how long to wait after that.
    """
    _leaving.acquire()  # never released: another thread that comes here waits for the end
    print(message, file=sys.stderr, flush=True)
    if _has_guardian:
        os.write(2, _SAID.encode())
    time.sleep(seconds)
    os._exit(LOST)


def guarded() -> bool:
    """Returns whether this process has a guardian. Its messages then go to the real stderr."""
    global _has_guardian
    number = os.environ.pop(_STDERR, "")
    if not number:
        return False
    sys.stderr = os.fdopen(int(number), "w", buffering=1)
    _has_guardian = True
    return True


def watch(command: Sequence[str]) -> int:
    """Runs `command`, which calls `guarded`, and returns its exit status.

    This is `LOST` if it ended because another process was lost, and 128 plus the signal if a signal
    ended it. The command does not outlive this process, on Linux not even if that is killed.
    """
    direct = os.dup(2)
    os.set_inheritable(direct, True)
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []  # signals that came before there was a child

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    lost = _Lost()
    try:
        child = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            pass_fds=(direct,),
            env={**os.environ, _STDERR: str(direct)},
            start_new_session=True,  # so that Ctrl-C reaches it once, from here
            preexec_fn=_dies_with_parent() if sys.platform.startswith("linux") else None,
        )
        for number in early:
            child.send_signal(number)
        relay = threading.Thread(target=_relay, args=(child.stderr, lost))
        relay.start()
        status = child.wait()
        relay.join()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(direct)
    if lost.told and status not in (0, LOST):
        if not lost.said:
            print(lost_message(lost.processes), file=sys.stderr, flush=True)
        return LOST
    if status < 0:
        name = signal.Signals(-status).name
        print(f"error: this process was ended by {name}", file=sys.stderr, flush=True)
        return 128 - status
    return status


class _Lost:
    """What messages of JAX and XLA tell about processes that were lost."""

    def __init__(self) -> None:
        self.told = self.said = False
        self.processes = set[int]()
        self._no_answer = False

    def read(self, line: str) -> None:
        """Takes the next line of the messages."""
        self.said |= line == _SAID
        self.told |= tells_of_lost_process(line)
        self._no_answer |= _NO_ANSWER.search(line) is not None
        if self.told and (number := _LATE.fullmatch(line)):
            self.processes.add(int(number[1]))
        if self._no_answer and not self.processes and _CALL.search(line):
            self.processes.add(0)


def _relay(stream: Any, lost: _Lost) -> None:
    """Passes the lines of `stream` on until one of them tells of a lost process."""
    for line in stream:
        text = line.decode(errors="replace")
        lost.read(text)
        if not (lost.told or lost.said):
            sys.stderr.write(text)
            sys.stderr.flush()


def _dies_with_parent() -> Any:
    """Returns a function that the kernel makes a new process end with its parent by."""
    prctl = ctypes.CDLL(None).prctl  # loaded here, because little is safe after a fork
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
