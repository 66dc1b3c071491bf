"""One of several processes of a run is lost: the others end soon, with one line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toys.waiting import LONG, runs, until
from wsss_jax.pipeline import guardian

REPOSITORY = Path(__file__).resolve().parents[2]
STATED_SECONDS = 60
"""How long it may take until the others have ended; see docs/launch.md."""
WATCH = "import sys; from wsss_jax.pipeline import guardian; sys.exit(guardian.watch(sys.argv[1:]))"
CHILD = "import os, signal, sys, time; from wsss_jax.pipeline import guardian; guardian.guarded();"
FATAL = "F1127 03:29:55 client.h:80] Terminating process because the JAX distributed service ..."


def watched(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WATCH, sys.executable, "-c", CHILD + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


@pytest.mark.parametrize("status", [0, 2, 75])
def test_statuses_and_messages_pass(status: int):
    says = "print('out'); print('err', file=sys.stderr); os.write(2, b'E11 from C\\n');"
    out, err = (process := watched(f"{says} sys.exit({status})")).communicate(timeout=LONG)
    assert process.returncode == status
    assert out == "out\n" and sorted(err.splitlines()) == ["E11 from C", "err"]


def test_a_lost_process_is_one_line():
    end = "sys.stdout.flush(); os.abort()"
    says = f"os.write(2, b'E11 about the weather\\n{FATAL}\\n*** Check failure ***\\n');"
    out, err = (process := watched(says + end)).communicate(timeout=LONG)
    assert process.returncode == guardian.LOST and out == ""
    assert err.splitlines() == ["E11 about the weather", guardian.LOST_MESSAGE]


def test_another_fatal_signal_is_named():
    out, err = (process := watched("os.kill(os.getpid(), 9)")).communicate(timeout=LONG)
    assert process.returncode == 137 and out == ""
    assert err == "error: this process was ended by SIGKILL\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_pass_once(number: signal.Signals):
    # The second signal is sent when the first one has arrived, and ends the process.
    count = f"count = []; signal.signal({int(number)}, lambda *_: count.append(1));"
    end = "ended = []; signal.signal(signal.SIGHUP, lambda *_: ended.append(1));"
    wait = (
        "print('ready', flush=True)\n"
        "while not count: time.sleep(0.01)\n"
        "print('counted', flush=True)\n"
        "while not ended: time.sleep(0.01)\n"
        "sys.exit(40 + len(count))"
    )
    process = watched(f"{count} {end} {wait}")
    assert process.stdout is not None
    for line, sent in (("ready\n", number), ("counted\n", signal.SIGHUP)):
        assert process.stdout.readline() == line
        process.send_signal(sent)
    process.communicate(timeout=LONG)
    assert process.returncode == 41


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux does this")
def test_a_killed_guardian_takes_its_process_along():
    process = watched("print(os.getpid(), flush=True); time.sleep(600)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.communicate(timeout=LONG)  # ends when the child has let go of its output
    until(lambda: not runs(child))


@pytest.fixture
def two(tmp_path: Path) -> Callable[[], list[subprocess.Popen[str]]]:
    """Starts both processes of a small run."""
    small = {"data.train_images": 64, "data.val_images": 16, "data.data_dir": tmp_path / "data"}
    small |= {"train.batch_size": 8, "train.steps": 40, "train.log_every": 1}
    values = [f"--config.{name}={value}" for name, value in small.items()]

    def start() -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "wsss_jax.main", "--config=cam_shapes"]
        command += [f"--workdir={tmp_path / 'w'}", f"--coordinator=127.0.0.1:{port}", *values]
        return [
            subprocess.Popen(
                [*command, "--num_processes=2", f"--process_id={index}"],
                cwd=REPOSITORY,
                env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(2)
        ]

    return start


def in_training(workdir: Path) -> bool:
    log = workdir / "train/metrics.jsonl"
    return log.is_file() and log.read_text().count("\n") > 3


def in_inference(workdir: Path) -> bool:
    return len(list(workdir.glob("cam_train/cams/*.npz"))) > 2


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("moment", [in_training, in_inference])
def test_the_others_end_in_time_and_the_same_command_goes_on(
    two: Callable, tmp_path: Path, moment: Callable[[Path], bool], lost: int
):
    both = two()
    deadline = time.monotonic() + 300
    while not moment(tmp_path / "w"):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in both), [p.communicate() for p in both]
        time.sleep(0.1)
    both[lost].kill()
    killed = time.monotonic()
    both[lost].communicate()
    other = both[1 - lost]
    out, err = other.communicate(timeout=300)
    assert time.monotonic() - killed < STATED_SECONDS
    assert other.returncode == guardian.LOST, (out, err)
    lines = [line for line in err.splitlines() if "/" not in line]  # the rest is progress
    assert lines == [guardian.LOST_MESSAGE], err
    both = two()
    results = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert json.loads((tmp_path / "w/results.json").read_text())["stages"]
