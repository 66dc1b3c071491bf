"""Reads many damaged and hostile checkpoints, and counts what the readers make of them.

    python -m tests.weights.hostile --count=20000

A third of the files is built to attack (calls of functions, sizes that are not there, bombs); the
others are good files with changed bits, bytes, counts, cuts and splices. Each kind of file is read
in a process of its own. A file is a violation if reading it

- does anything but read: a hook of Python's hears imports, calls of programs, writes and so on;
- ends otherwise than with arrays or with a `UserError` of one line;
- takes 5 seconds of processor time;
- takes more memory than twice the file's size and 16 MiB, both as NumPy and Python count what they
  ask for, and as the system counts what the process has (on Linux).

A crash of the process is a violation of the file that it was reading.
"""

import argparse
import codecs
import json
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.weights import attacks
from wsss_jax.errors import UserError
from wsss_jax.weights.checkpoint import read_checkpoint

MODULE = "tests.weights.hostile"
SPARE = 16 * 2**20
SECONDS = 5

FORBIDDEN = (
    *("os.", "subprocess.", "socket.", "ctypes.", "shutil.", "ftplib.", "urllib.", "webbrowser."),
    *("pickle.find_class", "marshal.", "exec", "import", "code.__new__", "function.__new__"),
    *("sys._getframe", "builtins.input", "pty.", "syslog.", "sqlite3.", "setopencv"),
)
"""Beginnings of the names of audit events that no reader may cause."""

ALLOWED = ("os.scandir", "os.listdir")

LATE = ("unicode_escape", "raw_unicode_escape", "latin1", "utf-8", "ascii", "cp437")
"""Encodings that Python imports when a file first has them."""


class Slow(BaseException):
    """A file took too long."""


class Listener:
    """Notes forbidden events while it is switched on."""

    def __init__(self) -> None:
        self.on = False
        self.heard: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writing = event == "open" and (
            any(letter in str(arguments[1]) for letter in "wax+")
            or (isinstance(arguments[2], int) and arguments[2] & 3)
        )
        if writing or (event.startswith(FORBIDDEN) and event not in ALLOWED):
            self.heard.append(f"{event} {str(arguments)[:100]}")


def read_one(path: Path) -> str:
    """Reads a file and touches its arrays; returns ``read`` or ``refused``, or what is wrong."""
    try:
        checkpoint = read_checkpoint(path)
    except UserError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            return "a message of more than one line"
        cause = error.__cause__
        if isinstance(cause, np.exceptions.AxisError | AssertionError):
            return f"a defect: {cause!r}"
        if type(cause).__name__ == "_ArrayMemoryError":
            return f"asked for memory: {cause}"
        return "refused"
    except Exception as error:
        return f"an exception: {error!r}"[:200]
    for array in checkpoint.arrays.values():
        if array.dtype.kind != "O":
            np.count_nonzero(array)
    return "read"


def resident(kind: str) -> int:
    """Bytes of memory that this process has: ``VmRSS`` now, ``VmHWM`` at most."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024


def measured(path: Path, listener: Listener) -> tuple[str, float, int, int]:
    """Reads a file twice; returns the outcome, seconds, and bytes that were asked for and had."""
    tracemalloc.start()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    started = time.process_time()
    try:
        listener.on = True
        outcome = read_one(path)
        listener.on = False
        spent = time.process_time() - started
        asked = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        before = resident("VmRSS")
        if before:
            Path("/proc/self/clear_refs").write_text("5")  # the most begins anew
        read_one(path)
        return outcome, spent, asked, max(0, resident("VmHWM") - before)
    except Slow:
        return f"took {SECONDS} s", SECONDS, 0, 0
    finally:
        listener.on = False
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_PROF, 0)


def read_all(kind: str, first: int, count: int, folder: Path) -> dict[str, Any]:
    """Reads `count` files of a kind in this process."""

    def slow(*_: object) -> None:
        raise Slow

    signal.signal(signal.SIGPROF, slow)
    listener = Listener()
    path, progress = folder / "checkpoint", folder / "progress"
    outcomes: Counter[str] = Counter()
    violations: list[str] = []
    slowest, most_asked, most_had = 0.0, 0.0, 0.0
    path.write_bytes(attacks.seeds(kind)[0])
    read_one(path)  # imports what readers import late
    assert codecs.decode(rb"\N{DIGIT ONE}", "unicode_escape") == "1"  # imports names of letters
    for name in LATE:
        codecs.lookup(name)
    for number in range(first, first + count):
        data, what = attacks.make(kind, number)
        path.write_bytes(data)
        progress.write_text(f"{number} {what}")
        outcome, spent, asked, had = measured(path, listener)
        allowed = 2 * len(data) + SPARE
        if listener.heard:
            outcome = f"did {listener.heard[0]}"
            listener.heard.clear()
        elif max(asked, had) > allowed:
            outcome = f"asked for {asked} and had {had} bytes of memory, not {allowed}"
        if outcome not in ("read", "refused"):
            violations.append(f"{kind} {number} ({what}, {len(data)} bytes): {outcome}")
        outcomes[outcome if outcome in ("read", "refused") else "violations"] += 1
        slowest = max(slowest, spent)
        most_asked, most_had = max(most_asked, asked / allowed), max(most_had, had / allowed)
    return {
        "files": count,
        "outcomes": dict(outcomes),
        "violations": violations,
        "slowest": slowest,
        "asked": most_asked,
        "had": most_had,
    }


def child(folder: Path, kind: str, first: int, count: int) -> list[str]:
    """The command that reads files of a kind in this folder, and prints what it found as JSON."""
    numbers = [f"--first={first}", f"--count={count}"]
    return [sys.executable, "-m", MODULE, *numbers, f"--child={kind}", f"--folder={folder}"]


def run_kind(kind: str, first: int, count: int) -> dict[str, Any]:
    """Reads files of a kind in a process of its own, and tells which file it crashed on."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            child(Path(folder), kind, first, count),
            stdout=subprocess.PIPE,
            timeout=60 + count * SECONDS,
        )
        if done.returncode == 0:
            return json.loads(done.stdout)
        at = (Path(folder) / "progress").read_text()
    return {
        "files": count,
        "outcomes": {},
        "violations": [f"{kind}: ended with {done.returncode} at file {at}"],
        "slowest": float("nan"),
        "asked": float("nan"),
        "had": float("nan"),
    }


def parser() -> argparse.ArgumentParser:
    """The options of the program."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--count", type=int, default=20_000, help="files of each kind")
    options.add_argument("--first", type=int, default=0, help="the number of the first file")
    options.add_argument("--kinds", nargs="+", choices=attacks.KINDS, default=list(attacks.KINDS))
    options.add_argument("--child", choices=attacks.KINDS, help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return options


def main(arguments: Sequence[str] | None = None, tell: Callable[[str], None] = print) -> int:
    """Runs the program; returns 1 if there was a violation."""
    options = parser().parse_args(arguments)
    if options.child:
        tell(json.dumps(read_all(options.child, options.first, options.count, options.folder)))
        return 0
    tell(
        f"{'kind':14}{'files':>7}{'read':>8}{'refused':>9}{'violations':>12}{'slowest s':>11}"
        f"{'asked of allowed':>18}{'had of allowed':>16}"
    )
    failed = False
    for kind in options.kinds:
        found = run_kind(kind, options.first, options.count)
        outcomes = found["outcomes"]
        tell(
            f"{kind:14}{found['files']:7}{outcomes.get('read', 0):8}{outcomes.get('refused', 0):9}"
            f"{len(found['violations']):12}{found['slowest']:11.2f}{found['asked']:18.2f}"
            f"{found['had']:16.2f}"
        )
        for violation in found["violations"][:20]:
            tell(f"  {violation}")
        failed |= bool(found["violations"])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
