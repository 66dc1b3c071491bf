"""A chain of all kinds of stages that is killed, stopped and left without space again and again.

WSSS_JAX_SOAK_ROUNDS is the number of events (20 if it is not set), WSSS_JAX_SOAK_SEED draws them.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss_jax.files import files_below, read_json
from wsss_jax.training.metrics import read_metrics

REPOSITORY = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("WSSS_JAX_SOAK_ROUNDS", "20"))
SEED = int(os.environ.get("WSSS_JAX_SOAK_SEED", "0"))
TRAININGS = ("train", "train_affinity", "train_segmentation")
ARGUMENTS = [
    "--config=seam_shapes",
    "--config.data.train_images=16",
    "--config.data.val_images=4",
    "--config.data.size=64",
    "--config.train.method.consistency_start=3",
    "--config.train.augment.long_side=(48,80)",
    "--config.train_segmentation.augment.long_side=(48,80)",
    *(f"--config.{name}.augment.crop=64" for name in TRAININGS),
    *(f"--config.{name}.batch_size=8" for name in TRAININGS),
    *(f"--config.{name}.epochs=4" for name in TRAININGS),
    *(f"--config.{name}.checkpoint_every=2" for name in TRAININGS),
]
# Files that hold times, and those of libraries, which have times in them.
TIMED = {"_START.json", "_DONE.json", "results.json", "memory.json", "report.html", "report.png"}
EVENTS = ("kill", "SIGTERM", "SIGINT", "no space")
LIMIT = 3600  # seconds; a machine may do other work as well


class Machine:
    """Starts runs in `disk`, whose compiled programs and data are beside it."""

    def __init__(self, folder: Path, disk: Path):
        self.disk = disk
        self.environment = dict(
            os.environ,
            PYTHONPATH=str(REPOSITORY),
            PYTHONUNBUFFERED="1",
            WSSS_JAX_DATA=str(folder / "data"),
            XDG_CACHE_HOME=str(folder / "cache"),
            JAX_COMPILATION_CACHE_DIR=os.environ.get(
                "JAX_COMPILATION_CACHE_DIR", str(folder / "xla")
            ),
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        )
        self.output = folder / "output"

    def start(self, name: str) -> subprocess.Popen:
        with self.output.open("wb") as output:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "wsss_jax.main",
                    *ARGUMENTS,
                    f"--workdir={self.disk / name}",
                ],
                cwd=self.disk,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def finish(self, name: str) -> None:
        """Runs the chain to its end."""
        process = self.start(name)
        try:
            assert process.wait(LIMIT) == 0, self.lines()[-5:]
        finally:
            process.kill()

    def lines(self) -> list[str]:
        return self.output.read_text(errors="replace").splitlines()

    def wait_for(self, process: subprocess.Popen, lines: int) -> bool:
        """Waits until so many lines are printed and signals are caught; False if it has ended."""
        limit = time.monotonic() + LIMIT
        while process.poll() is None:
            assert time.monotonic() < limit, "nothing happens any more"
            if len(self.lines()) >= lines and catches_signals(process.pid):
                return True
            time.sleep(0.02)
        return False


def catches_signals(pid: int) -> bool:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[bool]:
    """Makes `folder` a file system of its own; yields False if that is not allowed."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(folder: Path, size: int) -> bool:
    change = ["mount", "-o", f"remount,size={size}", str(folder)]
    return subprocess.run(change, capture_output=True).returncode == 0


def results(workdir: Path) -> dict[str, Any]:
    """Everything that must not depend on interruptions."""
    found: dict[str, Any] = {}
    for path in files_below(workdir):
        name = path.relative_to(workdir).as_posix()
        if path.name.startswith((".", "_FILES-")) or path.name in TIMED or "/report" in f"/{name}":
            continue
        if "checkpoints/" in name or "tensorboard/" in name:
            continue
        if path.name.startswith("weights") and path.suffix == ".npz":
            with np.load(path) as arrays:
                found[name] = {key: arrays[key].tobytes() for key in arrays.files}
        elif path.name == "metrics.jsonl":
            rows = read_metrics(path.parent)
            found[name] = [{**row, "images_per_second": None} for row in rows]
        elif path.name == "metrics.json":
            scores = ("miou", "iou", "best_threshold", "precision", "recall", "classification_loss")
            found[name] = {key: value for key, value in read_json(path).items() if key in scores}
        else:
            found[name] = path.read_bytes()
    return found


@pytest.mark.slow
def test_nothing_is_lost_or_different_after_many_interruptions(tmp_path: Path):
    draw = random.Random(SEED)
    (tmp_path / "disk").mkdir()
    with disk(tmp_path / "disk") as sized:
        machine = Machine(tmp_path, tmp_path / "disk")
        machine.finish("whole")
        count, expected = len(machine.lines()), results(machine.disk / "whole")
        assert len(expected) > 100
        happened = dict.fromkeys(EVENTS, 0)
        finished = 0
        while sum(happened.values()) < ROUNDS:
            process = machine.start("broken")
            event = draw.choice(EVENTS if sized else EVENTS[:-1])
            try:
                there = machine.wait_for(process, draw.randrange(count))
                time.sleep(draw.random())
                if there and process.poll() is None:
                    happened[event] += happen(event, process, machine, draw)
                else:
                    process.wait(LIMIT)
            finally:
                process.kill()
            said = machine.lines()
            told = f"{happened}, then {event}: {said[-4:]}"
            assert not any("Traceback" in line or "leaked" in line for line in said), said
            if process.returncode == 2:
                errors = [line for line in said[-2:] if line.startswith("error: no space left")]
                assert event == "no space" and errors, told
            else:
                assert process.returncode in (0, 130, -signal.SIGKILL), told
            if process.returncode == 0 and said[-1].startswith("masks of "):
                assert results(machine.disk / "broken") == expected, told
                shutil.rmtree(machine.disk / "broken")
                finished += 1
        machine.finish("broken")
        assert results(machine.disk / "broken") == expected
        print(f"{happened}, {finished} runs were finished on the way")


def happen(event: str, process: subprocess.Popen, machine: Machine, draw: random.Random) -> bool:
    """Lets an event happen and waits for the end; False if it could not happen."""
    if event != "no space":
        process.send_signal(signal.SIGKILL if event == "kill" else getattr(signal, event))
        process.wait(LIMIT)
        return True
    used = shutil.disk_usage(machine.disk).used
    # The kernel refuses to make it smaller than its content, which grows meanwhile.
    happened = resize(machine.disk, used + draw.randrange(1 << 12, 1 << 20))
    process.wait(LIMIT)
    assert resize(machine.disk, 512 << 20)
    return happened
