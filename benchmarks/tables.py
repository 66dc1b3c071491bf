"""What the benchmarks print: the machine, and tables in Markdown."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def machine(threads: int, *packages: str) -> str:
    """Processor, threads, Python and the versions of `packages`, in one line."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((li.split(":")[1].strip() for li in lines if "model name" in li), cpu)
    versions = [f"{package} {version(package)}" for package in packages]
    return ", ".join(
        [cpu, f"{threads} thread(s)", f"Python {platform.python_version()}", *versions]
    )


def row(cells: Sequence[object]) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def head(names: Sequence[str]) -> str:
    """The two lines that a table begins with."""
    return f"{row(names)}\n|{'---|' * len(names)}"
