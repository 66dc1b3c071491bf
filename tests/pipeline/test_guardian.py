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
from wsss_jax.pipeline import guardian, stalls

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
    assert err.splitlines() == ["E11 about the weather", guardian.lost_message()]


@pytest.mark.parametrize(
    ("says", "lost"),
    [
        (
            f"{FATAL}\nThe following tasks are unhealthy (stopped sending heartbeats):\n1\n12\n",
            [1, 12],
        ),
        (f"{FATAL} absl::Status: DEADLINE_EXCEEDED: Deadline\n\nRPC: /xla.Co/Heartbeat\n", [0]),
        (f"{FATAL} absl::Status: UNAVAILABLE: Socket closed\n\nRPC: /xla/PollForError\n", [0]),
        (f"{FATAL} absl::Status: UNAVAILABLE: unhealthy:\n1\nRPC: /xla/PollForError\n", [1]),
        (f"{FATAL} absl::Status: ABORTED: 1 task\nRPC: /xla/PollForError\n", []),
    ],
)
def test_lost_processes_are_named_where_they_are_known(says: str, lost: list[int]):
    process = watched(f"os.write(2, {says.encode()!r}); os.abort()")
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == guardian.LOST and err == guardian.lost_message(lost) + "\n"
    assert ("another process" in err) == (not lost) and "processs" not in err


def test_what_a_process_says_when_it_leaves_is_said_once():
    ends = f"lambda seconds: (os.write(2, {FATAL.encode()!r}), os.abort())"
    process = watched(f"time.sleep = {ends}; guardian.leave('error: 1 is late', 5)")
    _, err = process.communicate(timeout=LONG)
    assert (process.returncode, err) == (guardian.LOST, "error: 1 is late\n")


def test_those_that_have_come_least_far_hang():
    folder = "wsss_jax/train/come_to"

    def hanging(before: list[str], now: list[str]) -> list[str]:
        both = ({f"{folder}/{i}": place for i, place in enumerate(one)} for one in (before, now))
        return stalls._hanging(*both)

    assert hanging(["7", "5", "7"], ["7", "5", "7"]) == ["1"]
    assert hanging(["5", "5", "7"], ["5", "5", "7"]) == ["0", "1"]
    assert hanging(["7", "7", "7"], ["7", "7", "7"]) == []  # Any of them may hang.
    assert hanging(["9", "2", "4"], ["9", "3", "4"]) == ["2"]  # Process 1 comes further.
    assert hanging(["9", "9"], ["9", "over"]) == ["0"]


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
def two(tmp_path: Path) -> Callable[..., list[subprocess.Popen[str]]]:
    """Starts both processes of a small run; the second one may be another program."""
    small = {"data.train_images": 64, "data.val_images": 16, "data.data_dir": tmp_path / "data"}
    small |= {"train.batch_size": 8, "train.steps": 40, "train.log_every": 1}
    values = [f"--config.{name}={value}" for name, value in small.items()]

    def start(*more: str, second: str = "") -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ["--config=cam_shapes", f"--workdir={tmp_path / 'w'}", *values, *more]
        command += [f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
        usual = ["-m", "wsss_jax.main"]
        return [
            subprocess.Popen(
                [sys.executable, *program, *command, f"--process_id={index}"],
                cwd=REPOSITORY,
                env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index, program in enumerate([usual, ["-c", second] if second else usual])
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
    until(lambda: moment(tmp_path / "w"), lambda: all(one.poll() is None for one in both))
    both[lost].kill()
    killed = time.monotonic()
    both[lost].communicate()
    out, err = both[1 - lost].communicate(timeout=LONG)
    assert time.monotonic() - killed < STATED_SECONDS
    assert both[1 - lost].returncode == guardian.LOST, (out, err)
    assert told(err) in (guardian.lost_message(), guardian.lost_message([lost]))
    goes_on(two, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "lost"), [(in_training, 1), (in_inference, 0)])
def test_a_stopped_process_is_named_in_time_and_the_same_command_goes_on(
    two: Callable, tmp_path: Path, moment: Callable[[Path], bool], lost: int
):
    both = two()
    until(lambda: moment(tmp_path / "w"), lambda: all(one.poll() is None for one in both))
    pid = both[lost].pid  # of the guardian
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(child), signal.SIGSTOP)
    out, err = both[1 - lost].communicate(timeout=LONG)
    assert both[1 - lost].returncode == guardian.LOST, (out, err)
    assert told(err) == guardian.lost_message([lost])
    both[lost].kill()
    both[lost].communicate(timeout=LONG)
    goes_on(two, tmp_path)


# Hangs after it has dispatched the fifth step, and so in none that others could wait for.
HANGS = """
import sys, time
from wsss_jax import main
from wsss_jax.pipeline import guardian
from wsss_jax.training import loop

add = loop._UnderWay.add

def then_hang(self, dispatched):
    add(self, dispatched)
    if dispatched.step == 5:
        time.sleep(3600)

loop._UnderWay.add = then_hang
guardian.guarded = lambda: True
sys.exit(main.main(["main.py", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_a_process_that_hangs_in_a_training_is_named_and_the_same_command_goes_on(
    two: Callable, tmp_path: Path
):
    both = two("--wait_minutes=1", second=HANGS)
    results = [process.communicate(timeout=LONG) for process in both]
    assert [process.returncode for process in both] == [guardian.LOST] * 2, results
    for _, err in results:
        assert told(err).startswith(
            "error: expected all 2 processes to come further in train within 1 minutes, found no"
            " progress of process 1: see its messages, then start all processes again"
        )
    goes_on(two, tmp_path)


def told(err: str) -> str:
    """The only line of `err` that is neither progress nor a note."""
    lines = [line for line in err.splitlines() if "/" not in line and not line.startswith("note:")]
    (line,) = lines
    return line


def goes_on(two: Callable, tmp_path: Path) -> None:
    both = two()
    results = [process.communicate(timeout=LONG) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert json.loads((tmp_path / "w/results.json").read_text())["stages"]
