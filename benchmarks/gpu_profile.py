"""Where the time of a step goes on a device: JAX's trace of it, summed by operation."""

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wsss_jax.accelerators.hlo import Module

KINDS = (
    ("convolutions", r"conv"),
    ("products", r"gemm|cublas|nvjet|dot"),
    ("transposing and copying", r"transpose|copy|memcpy|convert"),
    ("sums", r"reduce|scatter"),
)
"""Kinds of work, by words in the names of kernels and operations; the first that fits counts."""
REST = "elementwise and the rest"
LISTED = 60

Span = tuple[str, str, float]
"""Operation, kernel and seconds."""


def spans(trace: Path) -> list[Span]:
    """The operations that ran on a device while JAX wrote a trace into the folder `trace`."""
    from jax.profiler import ProfileData

    found: list[Span] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its types have no module
        for file in trace.rglob("*.xplane.pb"):
            found += executed(ProfileData.from_file(str(file)).planes)
    return found


def executed(planes: Iterable[Any]) -> list[Span]:
    """What ran on the devices of a trace, or on the host if it has none.

    The host's part of a GPU's trace has the calls that start the same operations.
    """
    device: list[Span] = []
    host: list[Span] = []
    for plane in planes:
        on_device = plane.name.startswith("/device:")
        for line in plane.lines:
            # A device has further lines that tell the same again, by program and by scope.
            if on_device and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                operation = str(dict(event.stats).get("hlo_op", ""))
                span = operation, event.name, event.duration_ns / 1e9
                if on_device:
                    device.append(span)
                elif operation:
                    host.append(span)
    return device or host


def summary(found: Sequence[Span], steps: int, program: str) -> dict[str, Any]:
    """Seconds of a step by kind of work and by operation, the longest first.

    Args:
      found: what ran.
      steps: in which it ran.
      program: the compiled program's text, which tells where an operation comes from.
    """
    told = _operations(program)
    kinds: dict[str, float] = defaultdict(float)
    single: dict[tuple[str, str], float] = defaultdict(float)
    for operation, kernel, seconds in found:
        kinds[kind(f"{kernel} {operation} {told.get(operation, ('', ''))[0]}")] += seconds / steps
        single[operation, kernel] += seconds / steps
    longest = sorted(single.items(), key=lambda item: -item[1])
    return {
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1])),
        "operations": [
            {"operation": operation, "kernel": kernel, "seconds": seconds, "what": what, "of": of}
            for (operation, kernel), seconds in longest[:LISTED]
            for what, of in (told.get(operation, ("", "")),)
        ],
        "device_seconds": sum(single.values()),
        "started": len(found) / steps,
    }


def kind(names: str) -> str:
    """The kind of work that the names of a kernel and of its operation tell."""
    return next((name for name, words in KINDS if re.search(words, names.lower())), REST)


def _operations(program: str) -> dict[str, tuple[str, str]]:
    """What is called and with which shape, and the scope, for each operation of a program."""
    found = {}
    for instructions in Module.parse(program).computations.values():
        for one in instructions.values():
            target = re.search(r'custom_call_target="([^"]*)"', one.attributes)
            scope = re.search(r'op_name="([^"]*)"', one.attributes)
            what = f"{target[1] if target else one.opcode} {one.type}"
            found[one.name] = (what, scope[1] if scope else "")
    return found
