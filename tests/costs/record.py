"""The recorded costs of programs, in costs.json, and how they are compared and recorded anew.

    python -m tests.costs.record --reason "Batch norm is folded into convolutions"

measures everything, replaces the values that changed, and keeps the reason with them. Costs on TPUs
are measured if libtpu is installed, and left as they are otherwise.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.toys.compiler import FLAGS, devices

REPOSITORY = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_name("costs.json")
DEVICES = 4
TARGETS = {"cpu": ("jax",), "tpu": ("jax", "libtpu")}
"""The packages on whose versions the costs of a target depend."""

_TOLERANCES = {"flops": 0.005, "bytes": 0.03}
"""The relative differences that are accepted; others must be equal."""

_FLAGS = (
    devices(DEVICES),
    # Costs are known before machine code is made, so this only saves time.
    "--xla_cpu_parallel_codegen_split_count=1",
    FLAGS,
)

Figures = Mapping[str, Mapping[str, float]]
"""Figures by name, for programs and runs by name."""


def measured(target: str, *methods: str) -> dict[str, dict[str, float]]:
    """Runs `tests.costs.measure` in a process of its own, for some methods or for all."""
    environment = dict(
        os.environ, XLA_FLAGS=" ".join(_FLAGS), JAX_PLATFORMS="cpu", PYTHONPATH=str(REPOSITORY)
    )
    if target == "tpu":
        environment["PYTHONPATH"] += os.pathsep + os.environ.get("PYTHONPATH", "")
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.costs.measure", target, *methods],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    if done.returncode:
        raise RuntimeError(f"measuring the costs on {target} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def versions(target: str) -> str:
    """The versions that the costs depend on, or "" if a package is not installed."""
    found = []
    for package in TARGETS[target]:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            return ""
    return ", ".join(found)


def read() -> dict[str, Any]:
    """``versions`` and ``costs`` by target, and ``changes`` with their reasons."""
    if not RECORD.exists():
        return {"versions": {}, "costs": {}, "changes": []}
    return json.loads(RECORD.read_text())


def flat(figures: Figures) -> dict[str, float]:
    """Figures by one name."""
    return {f"{name}: {key}": value for name, one in figures.items() for key, value in one.items()}


def differences(recorded: Figures, found: Figures) -> Iterator[str]:
    """Yields what is not as recorded, one line for each figure."""
    expected, now = flat(recorded), flat(found)
    for name in sorted({*expected, *now}):
        if name not in now or name not in expected:
            yield f"{name} is {'no longer measured' if name in expected else 'new'}, record it"
            continue
        before, after = expected[name], now[name]
        allowed = _TOLERANCES.get(name.rpartition(": ")[2], 0.0) * before
        if abs(after - before) <= allowed:
            continue
        change = f"{name} was {before:,.0f}, is {after:,.0f}"
        if before:
            change += f" ({after / before - 1:+.1%})"
        if after < before:
            yield f"{change}, better: record it"
        else:
            yield f"{change}, worse: mend it, or record it with its reason"


def write(record: Mapping[str, Any]) -> None:
    """Writes the record with a line for each program and each change."""

    def lines(name: str, items: Mapping[str, Any] | list[Any], depth: int) -> str:
        inner, outer = "  " * (depth + 1), "  " * depth
        if isinstance(items, list):
            rows = [f"{inner}{json.dumps(one)}" for one in items]
            return f'{outer}"{name}": [\n' + ",\n".join(rows) + f"\n{outer}]"
        rows = [f"{inner}{json.dumps(key)}: {json.dumps(one)}" for key, one in items.items()]
        return f'{outer}"{name}": {{\n' + ",\n".join(rows) + f"\n{outer}}}"

    parts = [lines("versions", record["versions"], 1)]
    costs = ",\n".join(lines(target, one, 2) for target, one in record["costs"].items())
    parts.append(f'  "costs": {{\n{costs}\n  }}')
    parts.append(lines("changes", record["changes"], 1))
    RECORD.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def update(record: dict[str, Any], target: str, found: Figures, reason: str) -> dict[str, Any]:
    """The record with the figures of `target` that differ by more than is tolerated, and why."""
    costs = {name: dict(one) for name, one in record["costs"].get(target, {}).items()}
    if not list(differences(costs, found)) and record["versions"].get(target) == versions(target):
        return record
    before, after = flat(costs), flat(found)
    changed = {
        name: [before.get(name), after.get(name)]
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }
    entry: dict[str, Any] = {"target": target, "versions": versions(target), "reason": reason}
    if record["costs"].get(target):
        entry["changed"] = changed
    return {
        "versions": record["versions"] | {target: versions(target)},
        "costs": record["costs"] | {target: found},
        "changes": [*record["changes"], entry],
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--reason", required=True, help="why the costs changed, in a sentence")
    parser.add_argument("--targets", default="cpu,tpu", help="cpu, tpu or both")
    options = parser.parse_args()
    if len(options.reason.split()) < 3:
        parser.error("--reason: expected why the costs changed, in a sentence")
    for target in options.targets.split(","):
        if not versions(target) or (target == "tpu" and not importlib.util.find_spec("libtpu")):
            print(f"{target}: left as recorded, because {' and '.join(TARGETS[target])} are needed")
            continue
        found, record = measured(target), read()
        for line in differences(record["costs"].get(target, {}), found):
            print(f"{target}: {line}")
        record = update(record, target, found, options.reason)
        write(record)


if __name__ == "__main__":
    main()
