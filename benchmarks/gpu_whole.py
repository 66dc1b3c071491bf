"""What `gpu` does with whole programs: ``python gpu_whole.py '{"work": "tests", ...}'``.

Prints what it finds as soon as it has found it, one object of JSON per line.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import worker

REPOSITORY = worker.HERE.parent
PACKAGES = ("jax", "jaxlib", "jax-cuda13-plugin", "flax", "optax", "numpy", "torch", "triton")
PACKAGES += ("nvidia-cudnn-cu13", "nvidia-cublas")
CARD = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit"


def environment() -> None:
    """The card, as nvidia-smi has it, the processors and the versions."""
    card = "no nvidia-smi"
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={CARD}", "--format=csv,noheader"]
        card = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    worker.emit(
        card=card,
        processors=os.cpu_count(),
        versions={"python": platform.python_version(), **versions},
    )


def tests(names: list[str], deselected: list[str]) -> None:
    """Runs tests but `deselected`; counts of outcomes, and those that failed with the reasons."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    command += ["-p", "benchmarks.reasons"]
    # Warnings are errors in the tests; here, those of other versions must not hide the results.
    command += ["-W", "default", "-n", "4", "--dist", "loadfile", *names]
    command += [f"--deselect={name}" for name in deselected]
    platforms = os.environ.get("JAX_PLATFORMS") or "cuda"
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": platforms},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    counts: dict[str, int] = {}
    failed: dict[str, str] = {}
    tail: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        tail = [*tail[-39:], line.rstrip()]
        if found := re.match(r"\[gw\d+\] \[ *\d+%\] ([A-Z]+) (.+?)\s*$", line):
            counts[found[1]] = counts.get(found[1], 0) + 1
            if found[1] in ("FAILED", "ERROR"):
                failed.setdefault(found[2], "")
            if sum(counts.values()) % 20 == 0:
                worker.emit(counts=counts, failed=failed)
        elif found := re.match(r"REASON (.+?) - (.*)", line):
            failed[found[1]] = found[2]
            worker.emit(counts=counts, failed=failed)
    code = process.wait()
    worker.emit(counts=counts, failed=failed, platform=platforms)
    if code not in (0, 1) or not counts:
        sys.exit("\n".join(tail))


def demo(toy: bool) -> None:
    """Seconds of each stage of the demo, from labels of drawn images to a network and its masks."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "wsss_jax.main", "--config", "seam_shapes"]
        command += ["--workdir", f"{name}/run", f"--config.data.data_dir={name}/data"]
        command += ["--only", "train"] if toy else []
        command += ["--config.train.steps=2"] if toy else []
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=sys.stderr
        )
        while True:
            ended = process.poll() is not None
            done = {
                path.parent.name: json.loads(path.read_text())
                for path in Path(name).glob("run/*/_DONE.json")
            }
            worker.emit(
                stages={stage: one["seconds"] for stage, one in done.items()},
                devices=sorted({one["device"] for one in done.values()}),
                scores={s: o["metrics"]["miou"] for s, o in done.items() if "miou" in o["metrics"]},
                wall=time.perf_counter() - start,
            )
            if ended:
                sys.exit(process.returncode)
            time.sleep(1)


WORKS = {work.__name__: work for work in (environment, tests, demo)}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    WORKS[arguments.pop("work")](**arguments)
