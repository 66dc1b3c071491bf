"""Compiles for devices that are only named, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
_PROGRAM = """
import json, sys
from wsss_jax.accelerators import topology
topology.without_devices()
import jax
from tests.toys import light_methods
from wsss_jax.accelerators.programs import Compiler
from wsss_jax.ops.sharding import data_mesh
from wsss_jax.training.optimizer import OptimizerSettings
from wsss_jax.training.step import lower_train_step
from wsss_jax.training.step_cost import step_cost

method = light_methods.make("cam", dropout=0.0, dtype="bfloat16")
optimizer = OptimizerSettings(lr=0.1)
each = method.batch_spec().shapes(2, 64, method.num_classes)
counted = step_cost(method, optimizer, each).flops
found = {"backend": jax.default_backend()}
for name in sys.argv[1:]:
    devices = topology.topology_devices(name)
    batch = method.batch_spec().shapes(2 * len(devices), 64, method.num_classes)
    compiler = Compiler(name, None, lambda message: None, topology.compiler_options(name))
    lowered = lower_train_step(method, optimizer, batch, data_mesh(devices))
    found[name] = compiler.cost(name, lowered).to_json() | {"counted": counted}
print(json.dumps(found))
"""


def compiled(*names: str) -> subprocess.CompletedProcess[str]:
    """Prints as JSON the costs by topology, with the counted FLOPs of a device's two images."""
    return run(_PROGRAM, *names)


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program that compiles for devices that are only named."""
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    paths = [str(_REPOSITORY), *filter(None, [environment.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=_REPOSITORY,
        env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=600,
    )
