"""Reads files in processes that are bounded, and tells what readers did wrong.

A file is wrong if reading it

- starts a program, opens a connection or writes elsewhere: a hook of Python's hears that;
- ends otherwise than with content or with a `UserError` of one line;
- gives other content than the good file, if checksums can tell;
- takes more processor time than its kind may, which is 5 seconds but for images;
- takes more memory than its kind may, as the system counts what the process has (on Linux).

The process that reads is a fork of this one, which has imported the readers. It reads many files;
one that ends, hangs or takes memory without coming back to Python is ended, and the file is named.
"""

import codecs
import dataclasses
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.kind import PLACES, Kind
from wsss_jax.errors import UserError

_WALL = 120
"""Seconds without any processor time after which a process hangs, on a busy machine too."""

_LONGEST = 4000  # characters of a message
_SLACK = 256 << 20  # bytes beyond which a process is ended without waiting for it

PROGRAMS = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "os.kill"),
    *("subprocess.", "socket.connect", "socket.getaddrinfo", "socket.bind", "ftplib.", "urllib."),
    *("pickle.find_class", "webbrowser.", "pty.", "shutil.chown", "os.chown", "sqlite3."),
)
"""Beginnings of the names of audit events that no reader may cause."""

QUIET = (
    *("os.", "subprocess.", "socket.", "ctypes.", "shutil.", "ftplib.", "urllib.", "webbrowser."),
    *("pickle.find_class", "marshal.", "exec", "import", "code.__new__", "function.__new__"),
    *("sys._getframe", "builtins.input", "pty.", "syslog.", "sqlite3.", "setopencv"),
)
"""Those that readers may not cause that do nothing but read."""

_ALLOWED = ("os.scandir", "os.listdir")

_LATE = ("unicode_escape", "raw_unicode_escape", "latin1", "utf-8", "ascii", "cp437")
"""Encodings that Python imports when a file first has them."""


class Slow(BaseException):
    """A file took too long."""


class Listener:
    """Notes forbidden events while it is switched on.

    Args:
      forbidden: beginnings of the names of events.
      folder: the only folder in which files may be written, or None.
    """

    def __init__(self, forbidden: tuple[str, ...], folder: Path | None):
        self.on = False
        self.heard: list[str] = []
        self._forbidden, self._folder = forbidden, folder
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writing = event == "open" and (
            any(letter in str(arguments[1]) for letter in "wax+")
            or (isinstance(arguments[2], int) and arguments[2] & 3)
        )
        if writing and self._folder is not None:
            path = arguments[0]
            writing = isinstance(path, str | bytes | os.PathLike) and not _below(path, self._folder)
        if writing or (event.startswith(self._forbidden) and event not in _ALLOWED):
            self.heard.append(f"{event} {str(arguments)[:100]}")


def _below(path: Any, folder: Path) -> bool:
    text = os.path.abspath(os.fsdecode(path))
    return text.startswith(str(folder)) or text == os.devnull


def read_one(kind: Kind, path: Path) -> tuple[str, object]:
    """Reads a file; returns ``read`` or ``refused``, or what is wrong, and the content."""
    try:
        return "read", kind.read(path)
    except UserError as error:
        return _of_refusal(error), None
    except Slow:
        raise
    except BaseException as error:  # Libraries in Rust have errors of their own.
        frames = traceback.extract_tb(error.__traceback__)
        own = [one for one in frames if "wsss_jax" in one.filename] or frames
        where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
        return f"an exception: {type(error).__name__}({str(error)[:200]!r}) at {where}", None


def _of_refusal(error: UserError) -> str:
    text = str(error)
    if "\n" in text or "\r" in text or len(text) > _LONGEST:
        return f"a message of {len(text)} characters or several lines: {text[:100]!r}"
    cause = error.__cause__
    if isinstance(cause, np.exceptions.AxisError | AssertionError):
        return f"a defect: {cause!r}"
    if isinstance(cause, MemoryError):
        return f"asked for memory: {cause}"
    return "refused"


def resident(what: str, process: int | str = "self") -> int:
    """Bytes of memory that a process has: ``VmRSS`` now, ``VmHWM`` at most."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line for line in lines if line.startswith(what)]
    return int(found[0].split()[1]) * 1024 if found else 0


@dataclasses.dataclass(frozen=True)
class Measured:
    """What reading a file came to: seconds, and bytes that were asked for and had."""

    outcome: str
    content: object
    seconds: float
    asked: int
    had: int


def measured(kind: Kind, path: Path, listener: Listener) -> Measured:
    """Reads a file within bounds."""
    if kind.reads_only:
        tracemalloc.start()
    signal.setitimer(signal.ITIMER_PROF, kind.seconds)
    started = time.process_time()
    asked = had = 0
    before = _begin_to_count()
    try:
        listener.on = True
        outcome, content = read_one(kind, path)
        listener.on = False
        spent = time.process_time() - started
        if kind.reads_only:  # What follows the memory takes some itself.
            asked = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            before = _begin_to_count()
            read_one(kind, path)
        if before:
            had = max(0, resident("VmHWM") - before)
        return Measured(outcome, content, spent, asked, had)
    except Slow:
        return Measured(f"took {kind.seconds:g} s", None, kind.seconds, 0, 0)
    finally:
        listener.on = False
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_PROF, 0)


def _begin_to_count() -> int:
    before = resident("VmRSS")
    if before:
        Path("/proc/self/clear_refs").write_text("5")  # the most begins anew
    return before


def write(made: Mapping[str, bytes | str], folder: Path) -> int:
    """Makes a folder of files, and returns the bytes of all of them."""
    shutil.rmtree(folder, ignore_errors=True)
    size = 0
    folder.mkdir()
    for name, content in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
            size += len(content)
        elif content == PLACES[0]:
            path.mkdir()
        elif content == PLACES[1]:
            os.mkfifo(path)
        elif content == PLACES[2]:
            path.symlink_to("/dev/zero")
        elif content == PLACES[3]:
            path.symlink_to(path)
        else:
            path.write_bytes(b"a")
            path.chmod(0)
    return size


def read_all(kind: Kind, first: int, count: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Reads files of a kind in this process, and yields what is begun and what came of it."""
    signal.signal(signal.SIGPROF, _slow)
    place = folder / "files"
    forbidden = QUIET if kind.reads_only else PROGRAMS
    listener = Listener(forbidden, None if kind.reads_only else folder)
    good = []
    for files in kind.seeds:  # imports what readers import late
        write(files, place)
        good.append(str(kind.read(place / next(iter(files)))))
    assert codecs.decode(rb"\N{DIGIT ONE}", "unicode_escape") == "1"  # imports names of letters
    for name in _LATE:
        codecs.lookup(name)
    for number in range(first, first + count):
        made = kind.make(number)
        size = write(made.files, place)
        about = f"{number} ({made.what}, {size} bytes)"
        allowed = kind.times * size + kind.spare
        yield {"number": number, "about": about, "most": allowed + resident("VmRSS")}
        children = _children()
        found = measured(kind, place / made.first, listener)
        outcome = found.outcome
        if listener.heard:
            outcome = f"did {listener.heard[0]}"
            listener.heard.clear()
        elif _children() > children:
            outcome = "started another process"
        elif max(found.asked, found.had) > allowed:
            outcome = f"asked for {found.asked:,} and had {found.had:,} bytes, not {allowed:,}"
        elif kind.sealed and outcome == "read" and not made.repaired:
            outcome = "read" if str(found.content) in good else "took what was changed"
        yield {
            "outcome": outcome,
            "seconds": found.seconds,
            "asked": found.asked / allowed,
            "had": found.had / allowed,
        }


def _slow(*_: object) -> None:
    raise Slow


def _children() -> int:
    """Returns the memory of the largest process that this one started and that ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


@dataclasses.dataclass
class Found:
    """What came of the files of a kind.

    Attributes:
      outcomes: how many files were read, refused and wrong.
      wrong: a line for each file that was wrong.
      seconds: the longest time.
      asked: the most memory that was asked for, as a share of what is allowed; `had` likewise.
    """

    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    asked: float = 0.0
    had: float = 0.0

    def add(self, kind: Kind, about: str, one: Mapping[str, Any]) -> None:
        """Adds what came of a file."""
        good = one["outcome"] in ("read", "refused")
        self.outcomes[one["outcome"] if good else "wrong"] += 1
        if not good:
            self.wrong.append(f"{kind.name} {about}: {one['outcome']}")
        self.seconds = max(self.seconds, one["seconds"])
        self.asked, self.had = max(self.asked, one["asked"]), max(self.had, one["had"])


def run(kind: Kind, first: int, count: int) -> Found:
    """Reads files of a kind in other processes.

    Raises:
      RuntimeError: the good files cannot be made or read.
    """
    found = Found()
    end = first + count
    with tempfile.TemporaryDirectory() as folder:
        while first < end:
            first = _in_child(kind, first, end - first, Path(folder), found) + 1
    return found


def _in_child(kind: Kind, first: int, count: int, folder: Path, found: Found) -> int:
    """Reads files in a new process, and returns the number of the last one."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _as_child(kind, first, count, folder, send)
    os.close(send)
    begun: dict[str, Any] = {}
    killed, rest, last = "", b"", first - 1
    since, used, latest = time.monotonic(), 0.0, 0.0
    while True:
        if select.select([receive], [], [], 0.1)[0]:
            data = os.read(receive, 1 << 16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for message in map(json.loads, lines):
                if "number" in message:
                    begun, last = message, message["number"]
                    used = _used(child)
                    since, latest = time.monotonic(), used
                else:
                    found.add(kind, begun["about"], message)
                    begun = {}
        elif begun and not killed:
            now = _used(child)
            if now != latest:  # On a busy machine, it may take long to get the processor.
                since, latest = time.monotonic(), now
            if now - used > 2 * kind.seconds or time.monotonic() - since > _WALL:
                killed = f"hung, and was ended after {now - used:.0f} s of the processor"
            elif resident("VmRSS", child) > begun["most"] + _SLACK:
                killed = f"took {resident('VmRSS', child):,} bytes of memory, and was ended"
            if killed:
                os.kill(child, signal.SIGKILL)
    os.close(receive)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if begun:
        outcome = killed or f"the process ended with {status}"
        found.add(kind, begun["about"], {"outcome": outcome, "seconds": 0, "asked": 0, "had": 0})
    elif status:
        output = (folder / "output").read_text(errors="replace")
        raise RuntimeError(f"{kind.name}: the process ended with {status}\n{output[-3000:]}")
    return last


def _as_child(kind: Kind, first: int, count: int, folder: Path, send: int) -> None:
    """Reads files, tells about each, and ends the process."""
    status = 1
    try:
        output = os.open(folder / "output", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for message in read_all(kind, first, count, folder):
            os.write(send, json.dumps(message).encode() + b"\n")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _used(process: int) -> float:
    """Returns the processor time of another process in seconds."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
