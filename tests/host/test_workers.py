"""Worker processes: what they import, how they end."""

import os
import subprocess
import sys
from pathlib import Path

from tests.toys.waiting import LONG, runs, until
from wsss_jax.host.workers import worker_count

REPOSITORY = Path(__file__).resolve().parents[2]
_PROGRAM = """
import os, signal, sys, time
from wsss_jax.errors import UserError
from wsss_jax.host import cam_crf, hard_labels, logit_masks, walk_masks
from wsss_jax.host.workers import process_pool

def loaded(name):
    return name in sys.modules

def end(task):
    os.kill(os.getpid(), signal.SIGKILL)

def tell(task):
    print(os.getpid(), flush=True)
    time.sleep(0.1)

if __name__ == "__main__":
    if sys.argv[1] == "loaded":
        finishing = [cam_crf.refine_cams, hard_labels.label_cams]
        finishing += [logit_masks.write_logit_mask, walk_masks.write_walk_and_mask]
        with process_pool(1) as pool:
            for function in finishing:  # another process finds it by importing its module
                pool.submit(isinstance, function, int).result()
            print(list(pool.map(loaded, [*(f.__module__ for f in finishing), "jax"])))
    elif sys.argv[1] == "killed":
        try:
            with process_pool(1) as pool:
                pool.submit(end, 0).result()
        except UserError as error:
            print(error)
    else:
        with process_pool(1) as pool:
            pool.submit(tell, 0).result()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def run_program(folder: Path, mode: str) -> str:
    (folder / "program.py").write_text(_PROGRAM)
    command = [sys.executable, str(folder / "program.py"), mode]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    found = subprocess.run(command, capture_output=True, text=True, timeout=LONG, env=environment)
    assert found.stdout, found.stderr
    return found.stdout


def test_workers_do_not_import_jax(tmp_path: Path):
    assert run_program(tmp_path, "loaded") == "[True, True, True, True, False]\n"


def test_a_killed_worker_is_told_in_one_line(tmp_path: Path):
    output = run_program(tmp_path, "killed")
    assert "use fewer workers" in output and output.count("\n") == 1


def test_workers_do_not_outlive_a_killed_run(tmp_path: Path):
    worker = int(run_program(tmp_path, "orphan"))
    until(lambda: not runs(worker))


def test_worker_count():
    assert worker_count(3, 10) == 3
    assert worker_count(3, 2) == 2
    assert worker_count(3, 0) == 1
    assert worker_count(0, 1000) >= 1
