"""Requests to stop that come while Python runs no code of its own, twice, or at the very end."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
BEGIN = """
import hashlib, os, signal, sys, time
from wsss_jax import interrupts
interrupts.begin()
interrupts.tell("interrupted; go on with X", 77)

def compiles(rounds):
    # As a compiler does, it never calls handlers of signals.
    hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)

def ready():
    print("ready", flush=True)
"""
FOREVER = 2**31 - 1


def started(program: str) -> subprocess.Popen[str]:
    """A process that watches for requests and then runs `program`."""
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + program],
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(program: str, *signals: int) -> tuple[int, str, str]:
    """(status, what was printed to stdout and stderr) after signals, each after a line "ready"."""
    process = started(program)
    try:
        assert process.stdout is not None
        for number in signals:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, out, err


def test_requests_are_watched_for_before_libraries_are_imported():
    program = "import sys; before = set(sys.modules); from wsss_jax import interrupts; "
    program += "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    environment = dict(os.environ, PYTHONPATH=str(REPOSITORY))
    loaded = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert "wsss_jax" in loaded.split()
    assert not {"typing", "re", "socket", "numpy", "jax"} & set(loaded.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_is_answered_at_once_where_python_runs(number: int):
    program = """
try:
    ready()
    time.sleep(600)
except KeyboardInterrupt:
    print("told")
"""
    assert ended(program, number) == (0, "told\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_never_returns_is_ended_after_the_grace(number: int):
    program = f"""
interrupts.GRACE_SECONDS = 0.1
try:
    ready()
    compiles({FOREVER})
except KeyboardInterrupt:  # which came before
    compiles({FOREVER})
"""
    assert ended(program, number) == (77, "", "interrupted; go on with X\n")


def test_a_second_ctrl_c_ends_at_once():
    program = """
interrupts.GRACE_SECONDS = 3600
seen = []
# As a training that finishes its step does not end at the first.
signal.signal(signal.SIGINT, lambda *_: seen or (seen.append(1), ready()))
ready()
while True:
    time.sleep(600)
"""
    status = ended(program, signal.SIGINT, signal.SIGINT)
    assert status == (77, "", "interrupted; go on with X\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_that_goes_on_says_so_at_once(number: int):
    program = f"""
interrupts.GRACE_SECONDS = 3600
interrupts.answer_with("stopping after this step")
signal.signal({int(number)}, lambda *_: None)  # The main thread never answers,
ready()
compiles({FOREVER})  # neither before this nor meanwhile.
"""
    process = started(program)
    try:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stderr.readline() == "stopping after this step\n"
        assert process.poll() is None
        if number == signal.SIGINT:
            process.send_signal(number)
            assert process.communicate(timeout=120)[1] == "interrupted; go on with X\n"
            assert process.returncode == 77
    finally:
        process.kill()
        process.communicate()


def test_two_requests_of_a_cluster_are_one():
    program = """
interrupts.GRACE_SECONDS = 3600
seen = []
signal.signal(signal.SIGTERM, lambda *_: (seen.append(1), ready()))
ready()
while len(seen) < 2:
    time.sleep(0.01)
print("saved")
"""
    status, out, err = ended(program, signal.SIGTERM, signal.SIGTERM)
    assert (status, out.splitlines()[-1], err) == (0, "saved", "")


def test_further_requests_do_not_prolong_the_grace():
    program = """
interrupts.GRACE_SECONDS = 2
# As a library loses requests.
signal.signal(signal.SIGTERM, lambda *_: None)
while True:
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0.01)
"""
    assert ended(program) == (77, "", "interrupted; go on with X\n")


def test_a_training_takes_the_time_that_its_step_takes():
    program = """
interrupts.GRACE_SECONDS = 0.01
interrupts.be_patient()
try:
    ready()
    compiles(2_000_000)
    time.sleep(600)
except KeyboardInterrupt:
    print("saved", flush=True)
    interrupts.finish(0)
"""
    assert ended(program, signal.SIGTERM) == (0, "saved\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_while_the_interpreter_shuts_down_changes_nothing(number: int):
    program = """
class Late:  # is deleted after Python has restored what signals do by default
    def __del__(self, write=os.write, compiles=hashlib.pbkdf2_hmac):
        write(1, b"ready\\n")
        compiles("sha256", b"", b"", 3_000_000)
late = Late()
interrupts.finish(3)
sys.exit(3)
"""
    assert ended(program, number) == (3, "", "")


def test_a_request_that_a_callback_of_a_library_loses_ends_the_process_too():
    program = """
import gc
from wsss_jax.pipeline import process
process.quiet()
interrupts.GRACE_SECONDS = 0.1
gc.callbacks.append(lambda *_: signal.raise_signal(signal.SIGINT))
gc.collect()
gc.callbacks.clear()
ready()
time.sleep(600)
"""
    status, out, err = ended(program)
    assert (status, err) == (77, "interrupted; go on with X\n") and out in ("", "ready\n")


def test_the_interpreter_shuts_down_in_time():
    program = """
import threading
interrupts.GRACE_SECONDS = 0.1
threading.Thread(target=time.sleep, args=(600,)).start()
ready()
interrupts.finish(3)
"""
    assert ended(program) == (3, "ready\n", "")


def test_processes_of_a_pool_start_without_ctrl_c(tmp_path: Path):
    (tmp_path / "slow_to_import.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\ndef work(n):\n    return n + 1\n"
    )
    script = tmp_path / "pool.py"
    script.write_text(
        "import sys\n"
        "from wsss_jax.host.workers import process_pool\n"
        "if __name__ == '__main__':\n"
        "    import signal\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "    import slow_to_import\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    with process_pool(1) as pool:\n"
        "        print(pool.submit(slow_to_import.work, 2).result())\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env=dict(os.environ, PYTHONPATH=f"{REPOSITORY}{os.pathsep}{tmp_path}"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_a_killed_pool_leaves_no_warning(tmp_path: Path):
    script = tmp_path / "pool.py"
    script.write_text(
        "import os, signal\n"
        "from wsss_jax.host.workers import process_pool\n"
        "if __name__ == '__main__':\n"
        "    with process_pool(1) as pool:\n"
        "        pool.submit(os.getpid).result()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
        capture_output=True,  # waits for the processes that it leaves, which hold the pipes
        text=True,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL
    assert not re.search("Traceback|leaked", done.stderr), done.stderr
