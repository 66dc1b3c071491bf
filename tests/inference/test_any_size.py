"""Every backbone becomes a program for images of any size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsss_jax.models.base import Backbone
from wsss_jax.settings import kind_names

REPOSITORY = Path(__file__).resolve().parents[2]

# In a process of its own, because the tests' checks of shapes know no symbols.
SCRIPT = """
import sys
import jax, jax.export, jax.numpy as jnp
from wsss_jax.inference.any_size import sum_of_views
from wsss_jax.inference.multi_scale import MultiScale
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import variable_shapes

how = MultiScale(scales=(1.0, 1.25), flip=False)
image = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("h, w"), 3), jnp.uint8)
size = jax.ShapeDtypeStruct((2,), jnp.int32)
for pair in sys.argv[1:]:
    name, backbone = pair.split(":")
    method = Method.from_config({"name": name, "backbone": {"name": backbone}}, num_classes=2)
    params, variables = variable_shapes(method)
    summed = sum_of_views(method, method.outputs[0], how)
    program = jax.export.export(jax.jit(summed), platforms=("cpu", "tpu"))(
        {"params": params, **variables}, image, size
    )
    print(pair, program.out_avals, flush=True)
"""


def _exported(pairs: list[str]) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *pairs],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.splitlines()


@pytest.mark.slow
def test_every_backbone_takes_symbolic_sizes():
    kinds = kind_names(Backbone)
    told = _exported([f"segmentation:{kind}" for kind in kinds])
    assert len(told) == len(kinds) and all("float32[3,h,w]" in line for line in told)


OVERLAY = """
import jax, jax.export, jax.numpy as jnp, numpy as np
from wsss_jax.models.dilated_overlay import DilatedOverlay

layer = DilatedOverlay(2, (1, 3))
x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 7, 4)), jnp.float32)
weights = layer.init(jax.random.key(0), x, overlaid=True)
overlaid = lambda x: layer.apply(weights, x, overlaid=True)
symbolic = jax.ShapeDtypeStruct((1, *jax.export.symbolic_shape("h, w"), 4), jnp.float32)
program = jax.export.export(jax.jit(overlaid))(symbolic)
np.testing.assert_allclose(program.call(x), overlaid(x), atol=1e-6)
"""


@pytest.mark.slow
def test_dilated_classifiers_of_symbolic_sizes_compute_the_same():
    """Also for maps that are smaller than the dilation."""
    run = subprocess.run(
        [sys.executable, "-c", OVERLAY],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_maps_of_methods_take_symbolic_sizes():
    methods = ("cam", "seam", "ssenet", "pss", "ecsnet")
    told = _exported([f"{method}:tiny" for method in methods])
    assert len(told) == len(methods) and all("float32[2,h,w]" in line for line in told)
