"""A run that is stopped and killed on its way ends with the very bytes of one that is not."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.toys.waiting import LONG, until
from wsss_jax.data.threads import thread_count
from wsss_jax.files import read_json
from wsss_jax.training.loop import STEPS_AHEAD

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES, STEPS, CHECKPOINT_EVERY = 48, 20, 5
ARGUMENTS = [
    "--config=cam_shapes",
    "--only=train,cam_train,eval_cam_train,pseudo_labels",
    f"--config.data.train_images={IMAGES}",
    "--config.data.size=64",
    f"--config.train.steps={STEPS}",
    "--config.train.batch_size=8",
    f"--config.train.checkpoint_every={CHECKPOINT_EVERY}",
    "--config.train.log_every=1",
    "--config.train.augment.crop=64",
    "--config.train.augment.long_side=(48,80)",
    "--config.train.method.backbone.width=8",
    "--config.cam_train.scales=(0.5,1.0)",
]
# Signals itself when a step's figures, or an image's maps, have been written: just there, and on
# the slowest machine too. Several threads write maps; the lock, which is not given back to the
# others before the signal is sent, keeps a second file from being written meanwhile.
PROGRAM = """
import os, signal, sys, threading
from wsss_jax import main
from wsss_jax.stages import infer_cam
from wsss_jax.training import metrics as writer

stage, count, name, *arguments = sys.argv[1:]
seen = 0
one_at_a_time = threading.Lock()

def then_signal(write):
    def wrapped(*arguments):
        global seen
        with one_at_a_time:
            write(*arguments)
            seen = arguments[1] if stage == "train" else seen + 1
            if seen == int(count):
                os.kill(os.getpid(), getattr(signal, name))
    return wrapped

if stage == "train":
    writer.MetricWriter.scalars = then_signal(writer.MetricWriter.scalars)
elif stage == "cam_train":
    infer_cam.write_cams = then_signal(infer_cam.write_cams)
sys.exit(main.main(["main.py", *arguments]))
"""


class Machine:
    """Runs the program with data and compiled programs in `folder`."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._environment = dict(
            os.environ,
            PYTHONPATH=str(REPOSITORY),
            WSSS_JAX_DATA=str(folder / "data"),
            JAX_COMPILATION_CACHE_DIR=str(folder / "xla"),
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        )

    def start(self, name: str, stage: str = "", count: int = 0, what: str = "") -> subprocess.Popen:
        signalled = [stage, str(count), what]
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *signalled, *ARGUMENTS, f"--workdir={name}"],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, name: str, stage: str = "", count: int = 0, what: str = "") -> tuple[int, str]:
        """(exit status, what was printed) of a run into the folder `name`."""
        process = self.start(name, stage, count, what)
        try:
            out, _ = process.communicate(timeout=LONG)
        finally:
            process.kill()
        return process.returncode, out

    def check_same(self, name: str, other: str) -> None:
        """Weights, maps and masks of two runs have the same bits."""
        a, b = self._folder / name, self._folder / other
        with np.load(a / "train/weights.npz") as x, np.load(b / "train/weights.npz") as y:
            assert x.files == y.files
            for key in x.files:
                np.testing.assert_array_equal(x[key], y[key], strict=True)
        for part in ("cam_train/cams", "pseudo_labels/masks"):
            # What a write leaves behind when it is killed begins with a dot.
            files = sorted(path.name for path in (a / part).glob("[!.]*"))
            assert len(files) == IMAGES
            assert files == sorted(path.name for path in (b / part).glob("[!.]*"))
            assert all((a / part / f).read_bytes() == (b / part / f).read_bytes() for f in files)


def went_on_after(out: str) -> int:
    found = re.search(rf"resuming after step (\d+) of {STEPS}\n", out)
    assert found, out
    return int(found[1])


def test_stopped_and_killed_runs_end_with_the_same_bits(tmp_path: Path):
    machine, chance = Machine(tmp_path), random.Random(11)
    status, out = machine.run("whole")
    assert status == 0, out
    assert "going on" not in out

    stopped = chance.randint(2, 7)
    status, out = machine.run("cut", "train", stopped, "SIGTERM")
    assert status == 0, out
    # Figures are fetched at most two steps late, and at once where the state is saved.
    found = re.search(r"stopped: stopped by SIGTERM after step (\d+); everything is saved", out)
    assert found, out
    saved = int(found[1])
    assert saved == (stopped if stopped % CHECKPOINT_EVERY == 0 else stopped + STEPS_AHEAD)
    assert re.search(r"\nto resume: python -m wsss_jax.main --config=cam_shapes .*=cut\n$", out)

    killed = chance.randint(12, STEPS)
    status, out = machine.run("cut", "train", killed, "SIGKILL")
    assert status == -signal.SIGKILL, out
    assert went_on_after(out) == saved

    images = chance.randint(1, IMAGES - 1)
    status, out = machine.run("cut", "cam_train", images, "SIGKILL")
    assert status == -signal.SIGKILL, out
    # The checkpoint of the last multiple of 5 may have been on its way when the run was killed.
    assert (killed - 1) // 5 * 5 - 5 <= went_on_after(out) < killed
    assert len(list((tmp_path / "cut/cam_train/cams").glob("*.npz"))) == images
    # Files count when the list of the stage has them. At most those of the images under way lack.
    noted = (tmp_path / "cut/cam_train/_FILES-0.txt").read_text().count(" cams/")
    assert images - 2 * thread_count() <= noted < images

    status, out = machine.run("cut")
    assert status == 0, out
    assert "cam_train (infer_cam): resumes" in out
    assert read_json(tmp_path / "cut/cam_train/metrics.json")["inferred"] == IMAGES - noted
    machine.check_same("whole", "cut")
    rows = (tmp_path / "cut/train/metrics.jsonl").read_text().splitlines()
    assert len(rows) == STEPS
    leftovers = [p for p in (tmp_path / "cut").rglob("*") if "tmp" in p.name]
    assert not leftovers


@pytest.mark.slow
def test_killed_from_outside_at_any_moment(tmp_path: Path):
    machine, chance = Machine(tmp_path), random.Random()
    assert machine.run("whole")[0] == 0
    for number in range(3):
        name = f"killed_{number}"
        for sign in ("train/metrics.jsonl", "train/checkpoints/5", "cam_train/cams"):
            process = machine.start(name)
            there = (tmp_path / name / sign).exists
            until(lambda there=there, process=process: there() or process.poll() is not None)
            time.sleep(chance.uniform(0, 1))
            process.kill()
            process.communicate()
        status, out = machine.run(name)
        assert status == 0, out
        machine.check_same("whole", name)
