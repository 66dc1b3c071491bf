"""Worker processes of the engine for work on images: no JAX, errors, interruption."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.toys.waiting import LONG, runs, until
from wsss_jax.host.workers import worker_count

REPOSITORY = Path(__file__).resolve().parents[2]


_PROGRAM = """
import functools, os, signal, sys, time
from pathlib import Path

def until(condition):
    while not condition():
        time.sleep(0.01)

def finish(position, paths):
    folder = Path(sys.argv[1])
    if sys.argv[2:] == ["together"]:  # no process does everything before the other one has begun
        (folder / f"begun{os.getpid()}").touch()
        until(lambda: len(list(folder.glob("begun*"))) == 2)
    if sys.argv[2:] == ["interrupted"] and position >= 4:
        (folder / f"waits{os.getpid()}").touch()
        until((folder / "interrupted").exists)
    if sys.argv[2:] == ["killed"] and position == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2:] == ["wrong"] and position == 5:
        raise ValueError("no such thing")
    part = paths[0].with_suffix(".part")
    part.write_text(str(os.getpid()))
    part.rename(paths[0])
    return "jax" in sys.modules

def interrupt(*_):
    (Path(sys.argv[1]) / "interrupted").touch()
    raise KeyboardInterrupt

if __name__ == "__main__":
    if sys.argv[2:] == ["interrupted"]:
        signal.signal(signal.SIGINT, interrupt)
    from wsss_jax.errors import UserError
    from wsss_jax.progress import Progress
    from wsss_jax.stages.per_image import ImageWork, run_on_images
    work = ImageWork(
        files=("made/{id}.txt",), prepare=lambda position: position, finish=finish, processes=2
    )
    ids = [f"toy{i}" for i in range(40)]
    progress = functools.partial(Progress, label="toys", enabled=False)
    print("begun", flush=True)
    try:
        found = {}
        done = run_on_images(
            ids, Path(sys.argv[1]), range(40), work, progress, found.__setitem__
        )
    except UserError as error:
        print(error)
    else:
        print(done.workers, sorted(found) == list(range(40)), set(found.values()))
"""


def program(folder: Path, *mode: str) -> subprocess.Popen[str]:
    """Runs the program in its own group of processes, as a terminal does."""
    (folder / "program.py").write_text(_PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(folder / "program.py"), str(folder), *mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
    )


def test_worker_processes_finish_images_and_import_no_jax(tmp_path: Path):
    output, errors = program(tmp_path, "together").communicate(timeout=LONG)
    assert output == f"begun\n{worker_count(2, 40)} True {{False}}\n", errors
    pids = {path.read_text() for path in (tmp_path / "made").iterdir()}
    assert len(pids) == 2 and len(list((tmp_path / "made").iterdir())) == 40


def test_a_killed_process_is_told_in_one_line(tmp_path: Path):
    output, errors = program(tmp_path, "killed").communicate(timeout=LONG)
    assert (
        "expected 2 processes to finish, found that one was killed" in output
        and output.count("\n") == 2
    ), errors


def test_a_mistake_in_a_process_names_its_image(tmp_path: Path):
    run = program(tmp_path, "wrong")
    errors = run.communicate(timeout=LONG)[1]
    assert run.returncode == 1 and errors.endswith("ValueError: no such thing\nimage toy5\n")
    assert {"toy0.txt", "toy1.txt"} <= {path.name for path in (tmp_path / "made").iterdir()}


def test_control_c_ends_the_processes_and_keeps_what_is_finished(tmp_path: Path):
    run = program(tmp_path, "interrupted")
    made = tmp_path / "made"
    # Both processes are in the middle of an image, and go on when the first one was told.
    until(lambda: len(list(tmp_path.glob("waits*"))) == 2, lambda: run.poll() is None)
    assert len(list(made.iterdir())) == 4
    os.killpg(run.pid, signal.SIGINT)
    errors = run.communicate(timeout=LONG)[1]
    assert "KeyboardInterrupt" in errors and "one was killed" not in errors
    files = list(made.iterdir())
    # Four images were under way or waited for a process; no others are begun after Ctrl-C.
    assert 4 <= len(files) <= 8 and all(path.suffix == ".txt" for path in files)
    assert not any(runs(int(path.read_text())) for path in files)
    stamps = {path: path.stat().st_mtime_ns for path in files}
    program(tmp_path).communicate(timeout=LONG)
    assert len(list(made.iterdir())) == 40
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
