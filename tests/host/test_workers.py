"""Worker processes: what they import, how they end, how much is in memory."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsss_jax.host.workers import in_processes, worker_count

REPOSITORY = Path(__file__).resolve().parents[2]
_PROGRAM = """
import os, signal, sys, time
from wsss_jax.errors import UserError
from wsss_jax.stages import crf
from wsss_jax.host.workers import in_processes

def loaded(name):
    return name in sys.modules

def end(task):
    os.kill(os.getpid(), signal.SIGKILL)

def tell(task):
    print(os.getpid(), flush=True)
    time.sleep(0.1)

if __name__ == "__main__":
    if sys.argv[1] == "loaded":
        print(list(in_processes(loaded, ["wsss_jax.stages.crf", "jax"], 1)))
    elif sys.argv[1] == "killed":
        try:
            list(in_processes(end, range(3), 1))
        except UserError as error:
            print(error)
    else:
        for _ in in_processes(tell, range(1), 1):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def run_program(folder: Path, mode: str) -> str:
    (folder / "program.py").write_text(_PROGRAM)
    command = [sys.executable, str(folder / "program.py"), mode]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert found.stdout, found.stderr
    return found.stdout


def test_workers_do_not_import_jax(tmp_path: Path):
    assert run_program(tmp_path, "loaded") == "[True, False]\n"


def test_a_killed_worker_is_told_in_one_line(tmp_path: Path):
    output = run_program(tmp_path, "killed")
    assert "use fewer workers" in output and output.count("\n") == 1


def test_workers_do_not_outlive_a_killed_run(tmp_path: Path):
    worker = Path(f"/proc/{run_program(tmp_path, 'orphan').strip()}")
    for _ in range(50):
        if not worker.exists() or "Z (zombie)" in (worker / "status").read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"process {worker.name} is still there")


def test_few_tasks_are_in_memory_at_once():
    pulled = 0

    def tasks() -> Iterator[int]:
        nonlocal pulled
        for task in range(12):
            pulled += 1
            yield task

    done = []
    for result in in_processes(abs, tasks(), 1):
        done.append(result)
        assert pulled - len(done) <= 2
    assert done == list(range(12))  # one process ends them in their order


def test_worker_count():
    assert worker_count(3, 10) == 3
    assert worker_count(3, 2) == 2
    assert worker_count(3, 0) == 1
    assert worker_count(0, 1000) >= 1
