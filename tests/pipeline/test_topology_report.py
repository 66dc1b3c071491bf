"""The report of a recipe on a topology, for which four CPU devices stand here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toys.compiler import FLAGS

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import dataclasses
import json
import sys
from pathlib import Path

import jax

from wsss_jax.accelerators.chips import V5E
from wsss_jax.pipeline import graph
from wsss_jax.pipeline.config import load_config
from wsss_jax.pipeline.topology_report import Target, report
from wsss_jax.stages.base import SplitSize, Stage

config = load_config("cam_irn_shapes")
for name in ("train", "train_irnet"):
    config[name].batch_size = 6
    config[name].steps = 0
    config[name].epochs = 2
    config[name].augment.crop = 32
config.cam.sum_on = "device"
config.cam.scales = config.cam_val.scales = (1.0, 2.0)
nodes = graph.stages(config)
class Unknown(Stage):
    # A training stage that does not state its network.
    outputs = ("weights.npz",)

    def run(self, ctx, inputs):
        raise AssertionError("expected a report, found that the stage runs")


other = tuple(
    dataclasses.replace(node, stage=Unknown()) if node.name == "train" else node for node in nodes
)
sizes = {"train": SplitSize(40, 6, ((24, 32), (32, 24)) * 20), "val": SplitSize(10, 6)}
target = Target("four:2x2", jax.devices(), V5E, {})
log = []
only = ("train", "cam", "walk")
lines = [list(report(nodes, sizes, only, target, log.append, Path(sys.argv[1]))) for _ in range(2)]
unknown = list(report(other, sizes, ("train", "cam"), target, log.append, None))
print(json.dumps({"unknown": unknown, "lines": lines[0], "again": lines[1], "log": log}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    flags = f"--xla_force_host_platform_device_count=4 {FLAGS}"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("costs"))],
        cwd=REPOSITORY,
        env=dict(os.environ, XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_stage_with_a_network_is_told(found: dict):
    text = "\n".join(found["lines"])
    assert text.startswith("four:2x2: 4 chips, each with 197 TFLOP/s in bfloat16, 15.75 GiB")
    blocks = re.split(r"\n\n", text)
    assert [block.split("\n")[0] for block in blocks[1:-1]] == ["train", "cam", "walk"]
    train, cam, walk = blocks[1:-1]
    # 40 images in batches of 8, twice.
    assert "training step, crop 32, float32: 8 images (2 on each of 4 chips)" in train
    assert "6 images cannot be sharded over 4 chips, so 8 are run: --config.train.batch_size=8" in (
        train
    )
    assert "  in all       10 times, " in train
    assert re.search(r"collectives  \d+ all-reduce \(\d", train)
    assert re.search(r"up to [\d,]+ images per chip fit \(predicted from 2 and 4", train)
    assert re.search(r"roofline     [\d.]+ ms, (memory|arithmetic|interconnect) binds", train)
    # The sizes of the images are known, at both scales.
    assert re.search(r"  cam at (24 x 32|32 x 24|32 x 32), float32: ", cam)
    assert re.search(r"  cam at (48 x 64|64 x 48|64 x 64), float32: ", cam)
    assert re.search(r"  batches of up to [\d,]+ padded pixels per chip fit \(predicted", cam)
    assert re.search(r"  sum of cam at (48 x 64|64 x 48|64 x 64): \d+ images \(", cam)
    assert "up to 3 channels in a batch" in cam
    assert "assumed" not in cam and "collectives  none" in cam
    assert re.search(r"  boundary at \d+ x \d+, float32: ", walk)
    assert re.search(
        r"  walk at \d+ x \d+, 4 labels \(assumed\): \d+ images \(\d+ on each of 4", walk
    )
    assert "unknown length" not in walk


def test_the_sum_is_that_of_the_stages(found: dict):
    lines = found["lines"]
    start = next(i for i, line in enumerate(lines) if line.startswith("at best "))
    names = [line.split(":")[0].strip() for line in lines[start + 1 :]]
    assert names == ["train", "cam", "walk"]
    times = [float(line.split()[-2]) for line in lines[start + 1 :]]
    assert float(lines[start].split()[2]) == pytest.approx(sum(times), rel=0.02)
    assert "without the work of hosts" in lines[start]


def test_a_network_that_is_unknown_is_no_zero(found: dict):
    _, *lines = found["unknown"]
    assert lines[:3] == [
        "",
        "cam",
        "  unknown: its network is trained by a stage that does not state it",
    ]
    assert lines[-2].startswith("at best 0 s on four:2x2")
    assert lines[-2].endswith(" and without what is unknown")
    assert lines[-1] == "  cam: unknown"


def test_each_program_is_compiled_once_and_its_cost_kept(found: dict):
    compiled = [line for line in found["log"] if line.startswith("compiled ")]
    begun = [line for line in found["log"] if line.startswith("compiling ")]
    assert len(compiled) == len(begun) == len(set(begun))
    assert all(re.search(r" in \d+ s$", line) for line in compiled)
    # The second report compiles nothing and says the same, but for what was worth verifying.
    assert found["again"][0] == found["lines"][0]
    assert [line for line in found["again"] if "roofline" in line] == [
        line for line in found["lines"] if "roofline" in line
    ]
