"""Measuring two programs side by side: a process that answers lines, and both of its ends.

Everything here runs in either environment, so it imports nothing beyond the standard library and
the one module of the package that needs no more than that.
"""

import inspect
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent

Step = Callable[[], float]
"""Does one training step, waits for its end and returns the loss."""


class WorkerEnded(Exception):
    """The process ended instead of answering; what it said stands on standard error."""


class Worker:
    """A program of this folder, run by any interpreter, that answers each line with a JSON object.

    Args:
      python: the interpreter.
      script: the program's file name; it calls `serve`.
      folder: its only argument, where both sides leave arrays for each other.
      threads: of its computations. They run on the CPU.
    """

    def __init__(self, python: str, script: str, folder: Path, threads: int = 1):
        self.script = script
        self.process = subprocess.Popen(
            [python, str(HERE / script), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "OMP_NUM_THREADS": str(threads),
                "PYTHONPATH": str(HERE.parent),
            },
        )

    def ask(self, question: object) -> dict[str, Any]:
        """The answer to one line.

        Raises:
          WorkerEnded: there is none.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(f"{question}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerEnded(f"{self.script} ended without an answer, see its message")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def serve(answer: Callable[[str], dict[str, Any]]) -> None:
    """Answers the lines of standard input until it ends: the other end of `Worker`."""
    for line in sys.stdin:
        print(json.dumps(answer(line.strip())), flush=True)


def serve_steps(step: Step) -> None:
    """Does as many steps as each line says; answers with ``seconds``, ``losses``, ``peak_gib``.

    The last is the most memory that this process has held so far. The list ``processor`` has the
    processor time of each step in seconds.
    """

    def answer(line: str) -> dict[str, Any]:
        seconds, processor, losses = [], [], []
        for _ in range(int(line)):
            start = time.perf_counter(), time.process_time()
            losses.append(step())
            seconds.append(time.perf_counter() - start[0])
            processor.append(time.process_time() - start[1])
        return {
            "seconds": seconds,
            "processor": processor,
            "losses": losses,
            "peak_gib": peak_gib(),
        }

    serve(answer)


def serve_images(
    do: Callable[[range, Path], None], folder: Path, known: Mapping[str, Any] | None = None
) -> None:
    """Does the images ``FIRST STOP`` that each line names; the results go to ``folder/cams``.

    Answers with ``wall`` and ``processor`` seconds, ``peak_gib``, and what is `known` beforehand.
    The results of a line are deleted when the next one comes, except those of ``FIRST STOP keep``.
    """

    def answer(line: str) -> dict[str, Any]:
        first, stop, *keep = line.split()
        out = folder if keep else folder.with_name(f"{folder.name}_timed")
        shutil.rmtree(out, ignore_errors=True)
        used, start = _processor_seconds(), time.perf_counter()
        if int(stop) > int(first):
            do(range(int(first), int(stop)), out)
        return {
            "wall": time.perf_counter() - start,
            "processor": _processor_seconds() - used,
            "peak_gib": peak_gib(),
            **(known or {}),
        }

    serve(answer)


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def emit(**found: Any) -> None:
    """Says what a measurement has found so far; `gpu` collects it."""
    print(json.dumps(found), flush=True)


def seconds_per_call(
    call: Callable[[], object], wait: Callable[[], object], turn: float, turns: int = 5
) -> list[float]:
    """Seconds of a call in each of several turns, within which the host waits for nothing.

    Args:
      call: starts the work, and returns before the device has done it.
      wait: waits for the end of all that was started.
      turn: seconds of a turn, which has at least one call.
      turns: how many there are, after two calls and one more that nobody measures.
    """

    def measured(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        return (time.perf_counter() - start) / calls

    measured(2)
    calls = max(1, round(turn / measured(1)))
    return [measured(calls) for _ in range(turns)]


def peak_gib() -> float:
    """The most memory that this process has held so far."""
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def limit_threads(threads: int) -> None:
    """Restricts this process and those it starts: XLA takes a thread per processor it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def why_not(python: str | None, module: str) -> str:
    """Why the interpreter cannot be compared with; empty where it has `module`."""
    if not python:
        return f"no interpreter with {module} was named"
    try:
        done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, text=True)
    except OSError as error:
        return f"{python} does not run ({error.strerror})"
    return f"{python} cannot import {module}" if done.returncode else ""


def twin_arguments(
    build: Callable[..., Any], described: Mapping[str, Any], handled: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What `build`, a twin of something of the package, is called with.

    Its signature says which fields it implements. Any other field must have the value that the
    original has by default, so a field that came later changes nothing until a recipe uses it.

    Args:
      build: the twin's class.
      described: ``fields`` and ``defaults`` of the original, both by name.
      handled: fields that the caller sees to.

    Raises:
      ValueError: a recipe uses a field that the twin does not implement.
    """
    fields, defaults = described["fields"], described["defaults"]
    named = set(inspect.signature(build).parameters)
    for name in sorted(set(fields) - named - set(handled)):
        if fields[name] != defaults[name]:
            raise ValueError(
                f"expected {name} to be {defaults[name]!r}, for the PyTorch network is written for"
                f" that alone, found {fields[name]!r}: compare another recipe"
            )
    return {name: fields[name] for name in fields if name in named}
