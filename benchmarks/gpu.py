"""Everything worth measuring on a GPU, in one call that may be cut short at any time.

On a machine with CUDA, JAX and PyTorch but no network, with the missing packages as wheels:

    python3 -m pip install -q --no-index --no-deps --no-compile --target .site .whl/*.whl
    export PYTHONPATH=$PWD/.site:$PWD
    python3 benchmarks/gpu.py --out gpu.jsonl --budget 400                # the training steps
    python3 benchmarks/gpu.py --out gpu.jsonl --budget 280 --programs 2   # tests, stages, the demo
    python3 benchmarks/gpu.py --table gpu.jsonl                           # Markdown

Each measurement is a process of its own with a time limit, so that a crash or a hang costs only
itself, and JAX and PyTorch do not share the memory. The most valuable ones come first
(`gpu_plan`). The result of each is one line of JSON in ``--out``, written as soon as it exists; a
measurement that was cut leaves what it had found. A repeated call skips what is finished and tries
what failed or was cut after everything else. Results of another card are kept apart. ``--list``
shows the names, and ``--only`` picks some of them. Without a GPU the same measurements run on the
CPU, where ``--toy`` makes them tiny.
"""

import contextlib
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command, gpu_tables, worker
from benchmarks.gpu_plan import PROGRAMS, Measurement, filling_batch, plan

Record = dict[str, Any]

SCRIPTS = {
    "jax": "gpu_jax.py",
    "stages": "gpu_stages.py",
    "torch": "gpu_torch.py",
    "whole": "gpu_whole.py",
}
ENOUGH = 15.0
"""Seconds; with fewer left no measurement is started."""


def read(path: Path) -> list[Record]:
    """The records of a file; a last line that was cut off is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def machine(toy: bool) -> str:
    """Whose results these are: the first card, or the CPU. Those of toys are kept apart."""
    card = ""
    with contextlib.suppress(OSError):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        card = subprocess.run(command, capture_output=True, text=True).stdout
    return (card.splitlines() or ["CPU"])[0].strip() + (", toy sizes" if toy else "")


def latest(records: Iterable[Record], on: str) -> dict[str, Record]:
    """The record that counts of each name on a machine: a finished one, or the last."""
    found: dict[str, Record] = {}
    for record in records:
        if record["on"] == on and found.get(record["name"], {}).get("status") != "finished":
            found[record["name"]] = record
    return found


def write(path: Path, record: Record) -> None:
    """Appends a line that survives the end of this process and of the machine."""
    with path.open("ab+") as file:
        # A line that was cut off must not swallow this one.
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        start = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(start + json.dumps(record).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def measure(one: Measurement, python: str, seconds: float, **more: Any) -> tuple[Record, bool]:
    """Runs a measurement's process for at most `seconds`, with `more` arguments.

    The process prints objects of JSON, each of which adds to what was found.

    Returns:
      What it found and how it ended, and whether this process was interrupted meanwhile.
    """
    argument = json.dumps({"work": one.work, **one.arguments, **more})
    command = [python, str(worker.HERE / SCRIPTS[one.side]), argument]
    record: Record = {
        "name": one.name,
        "side": one.side,
        "work": one.work,
        "arguments": one.arguments,
        "command": f"python benchmarks/gpu.py --only {shlex.quote(one.name)}",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    # All of the card is ours; 8 % is left to the libraries that allocate for themselves.
    older = "XLA_PYTHON_CLIENT_MEM_FRACTION" in os.environ  # JAX refuses both names together
    environment = {
        **({} if older else {"XLA_CLIENT_MEM_FRACTION": "0.92"}),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(worker.HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        **one.environment,
    }
    start, interrupted = time.monotonic(), False
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env=environment, process_group=0
        )
        try:
            code = process.wait(seconds)
            status = "finished" if code == 0 else "failed"
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as end:
            status, interrupted = "cut", isinstance(end, KeyboardInterrupt)
        finally:
            # What it has started goes with it, whatever interrupts us.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        err.seek(0)
        for line in out:
            if line.startswith("{"):
                with contextlib.suppress(json.JSONDecodeError):
                    record |= json.loads(line)
        said = [line.strip() for line in err if line.strip()]
    if status == "failed":
        record["said"] = said[-12:]
    seconds = round(time.monotonic() - start, 1)
    return record | {"status": status, "seconds": seconds}, interrupted


@functools.cache
def twin_of(recipe: str) -> Any:
    """What PyTorch's side has to know about a recipe, which our side tells without any device."""
    one = Measurement("twin", 0, "jax", "twin", {"recipe": recipe}, 60, {"JAX_PLATFORMS": "cpu"})
    record, _ = measure(one, sys.executable, one.limit)
    return record.get("twin")


def order(wanted: list[Measurement], known: Mapping[str, Record]) -> list[Measurement]:
    """What is not finished: what was never tried first, each part in the order of the plan."""
    unfinished = [one for one in wanted if known.get(one.name, {}).get("status") != "finished"]
    return sorted(unfinished, key=lambda one: one.name in known)


def run(wanted: list[Measurement], out: Path, budget: float, torch_python: str, on: str) -> bool:
    """Measures within `budget` seconds; whether all that was started was finished."""
    begin, good = time.monotonic(), True
    alone = ""
    if any(one.side == "torch" for one in wanted):
        alone = worker.why_not(torch_python, "torch")
    for one in order(wanted, latest(read(out), on)):
        left = budget - (time.monotonic() - begin)
        if left < ENOUGH:
            print(f"{left:.0f} s are left: the rest waits for another call", flush=True)
            break
        if one.side == "torch" and alone:
            print(f"{one.name}: left out, for {alone}", flush=True)
            continue
        if one.arguments.get("batch") == "fill":
            batch = filling_batch(latest(read(out), on), one)
            if not batch:
                print(
                    f"{one.name}: left out, for the memory of two batches is not known", flush=True
                )
                continue
            one = one.at_batch(batch)
        python = torch_python if one.side == "torch" else sys.executable
        more = {}
        if one.side == "torch" and "recipe" in one.arguments:
            more = {"twin": twin_of(str(one.arguments["recipe"]))}
        record, interrupted = measure(one, python, min(one.limit, left), **more)
        write(out, {"on": on, **record})
        good &= record["status"] == "finished"
        said = f" ({record['said'][-1]})" if record.get("said") else ""
        print(f"{one.name}: {record['status']} after {record['seconds']} s{said}", flush=True)
        if interrupted:
            sys.exit(130)
    return good


def main() -> None:
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("gpu.jsonl"), help="the file of results")
    add("--table", type=Path, metavar="FILE", help="print the tables of this file, measure nothing")
    add("--budget", type=float, default=float("inf"), help="seconds for everything")
    add(
        "--programs",
        default="1,2",
        help="; ".join(f"{number}: {what}" for number, what in PROGRAMS.items()),
    )
    add("--only", nargs="+", default=[], metavar="NAME", help="these measurements alone")
    add("--list", action="store_true", help="print the names and limits, measure nothing")
    add("--toy", action="store_true", help="tiny sizes")
    add("--torch-python", default=sys.executable, help="interpreter with PyTorch")
    options = parser.parse_args()
    if options.table:
        if not options.table.is_file():
            parser.error(f"--table: expected a file of results, found none at {options.table}")
        records = read(options.table)
        for on in dict.fromkeys(record["on"] for record in records):
            print(f"## {on}\n\n{gpu_tables.tables_of(latest(records, on))}\n")
        return
    chosen = options.programs.split(",")
    if unknown := sorted(set(chosen) - {str(number) for number in PROGRAMS}):
        parser.error(f"--programs: expected numbers of {list(PROGRAMS)}, found {unknown}")
    wanted = [one for one in plan(options.toy, options.out) if str(one.program) in chosen]
    if unknown := sorted(set(options.only) - {one.name for one in wanted}):
        parser.error(f"--only: expected names that --list prints, found {unknown}")
    wanted = [one for one in wanted if not options.only or one.name in options.only]
    if options.list:
        for one in wanted:
            print(f"{one.program}  {one.limit:4.0f} s  {one.name}")
        return
    signal.signal(signal.SIGTERM, _interrupt)  # `timeout` sends it before it kills
    on = machine(options.toy)
    sys.exit(0 if run(wanted, options.out, options.budget, options.torch_python, on) else 1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
