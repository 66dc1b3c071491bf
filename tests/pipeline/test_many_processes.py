"""One run by 1, 2 and 4 real processes: the same losses, the same files, and any change between."""

import itertools
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss_jax.files import read_json
from wsss_jax.pipeline.config import load_config
from wsss_jax.training.metrics import read_metrics

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 10
TRAINED = ("train", "train_affinity", "train_segmentation")
SETTINGS = {
    "data.train_images": 16,
    "data.val_images": 6,
    "data.size": 64,
    "train.method.backbone.width": 8,
    "train_affinity.method.backbone.width": 8,
    "train_segmentation.method.backbone.width": 8,
    "train.method.consistency_start": 4,
    "cam.scales": "(1.0,)",
    "cam_val.scales": "(1.0,)",
    "masks_val.scales": "(1.0,)",
}
# Sends itself SIGTERM when the figures of a step, the first argument, are written. It has no
# guardian, which would start another program.
PROGRAM = """
import os, signal, sys
from wsss_jax import main
from wsss_jax.pipeline import guardian
from wsss_jax.training import metrics as writer

at, *arguments = sys.argv[1:]
write = writer.MetricWriter.scalars

def then_signal(self, step, *figures):
    write(self, step, *figures)
    if step == int(at):
        os.kill(os.getpid(), signal.SIGTERM)

writer.MetricWriter.scalars = then_signal
guardian.guarded = lambda: True
sys.exit(main.main(["main.py", *arguments]))
"""
for _stage in TRAINED:
    SETTINGS |= {f"{_stage}.batch_size": 8, f"{_stage}.steps": STEPS, f"{_stage}.log_every": 1}
    SETTINGS[f"{_stage}.augment.crop"] = 48
    SETTINGS[f"{_stage}.checkpoint_every"] = 100


class Cluster:
    """Runs one recipe with several processes in folders of `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        config: Any = load_config("seam_shapes")
        self.stages: tuple[str, ...] = config.stages
        self._environment = dict(
            os.environ,
            JAX_PLATFORMS="cpu",
            XLA_FLAGS="",
            WSSS_JAX_DATA=str(folder / "data"),
            JAX_COMPILATION_CACHE_DIR=str(folder / "xla"),
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        )

    def run(self, name: str, processes: int, only: str = "", stop_at: int = 0) -> str:
        """What the first process printed; all must end well.

        If `stop_at` is not 0, the last process gets SIGTERM after this step.
        """
        command = ["--config=seam_shapes", f"--workdir={self.folder / name}"]
        command += [f"--only={only}"] if only else []
        command += [f"--config.{setting}={value}" for setting, value in SETTINGS.items()]
        joined: list[list[str]] = [[]]
        if processes > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            both = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"]
            joined = [[*both, f"--process_id={index}"] for index in range(processes)]
        program = ["-m", "wsss_jax.main"]
        programs = [program] * (processes - 1)
        programs.append(["-c", PROGRAM, str(stop_at)] if stop_at else program)
        run = [
            subprocess.Popen(
                [sys.executable, *program, *command, *flags],
                cwd=REPOSITORY,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for program, flags in zip(programs, joined, strict=True)
        ]
        found = [process.communicate(timeout=900) for process in run]
        assert [process.returncode for process in run] == [0] * processes, found
        return found[0][0]

    def copy(self, name: str, first: str) -> str:
        """A copy of the run `one` without the stage `first` and all later ones; its name."""
        shutil.copytree(self.folder / "one", self.folder / name)
        for stage in self.stages[self.stages.index(first) :]:
            shutil.rmtree(self.folder / name / stage)
        return name

    def losses(self, name: str, stage: str) -> list[float]:
        return [row["loss"] for row in read_metrics(self.folder / name / stage)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A folder in which one process made the run `one`."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.run("one", 1)
    return cluster


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("processes", [2, 4])
def test_stages_after_a_training_make_the_same_files(
    cluster: Cluster, processes: int, trained: str
):
    """All of its per-image stages, from the same weights."""
    later = cluster.stages[cluster.stages.index(trained) + 1 :]
    made = tuple(itertools.takewhile(lambda stage: stage not in TRAINED, later))
    name = cluster.copy(f"after_{trained}_by_{processes}", made[0])
    out = cluster.run(name, processes, only=",".join(made))
    assert out.count(": starts") == len(made)
    one, many = cluster.folder / "one", cluster.folder / name
    compared = 0
    for stage in made:
        folders = [path for path in (one / stage).iterdir() if path.is_dir()]
        for path in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
            same = many / path.relative_to(one)
            assert same.read_bytes() == path.read_bytes(), same
            compared += 1
        figures = [read_json(run / stage / "metrics.json") for run in (one, many)]
        assert figures[0].get("miou") == figures[1].get("miou")
    assert (
        compared >= {"train": 16 + 6 + 16, "train_affinity": 16, "train_segmentation": 6}[trained]
    )


@pytest.mark.parametrize("stage", TRAINED)
@pytest.mark.parametrize("processes", [2, 4])
def test_losses_are_those_of_one_process(cluster: Cluster, processes: int, stage: str):
    name = cluster.copy(f"{stage}_by_{processes}", stage)
    cluster.run(name, processes, only=stage)
    losses = cluster.losses(name, stage)
    assert len(losses) == STEPS
    np.testing.assert_allclose(losses, cluster.losses("one", stage), rtol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (1, 2), (2, 1)])
def test_another_number_of_processes_goes_on(cluster: Cluster, before: int, after: int):
    name = f"from_{before}_to_{after}"
    assert "stopped by " in cluster.run(name, before, only="train", stop_at=4)
    saved = [int(path.name) for path in (cluster.folder / name / "train/checkpoints").iterdir()]
    assert len(saved) == 1 and saved[0] < STEPS
    assert f"resuming after step {saved[0]} of {STEPS}" in cluster.run(name, after, only="train")
    losses = cluster.losses(name, "train")
    np.testing.assert_allclose(losses, cluster.losses("one", "train"), rtol=1e-5)
