"""Eight devices give what one gives, and what a program that spells out its reductions gives."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
METHODS = ("cam", "ssenet", "seam", "pss", "ecsnet", "segmentation")
PROGRAM = """
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.inference import load_network
from wsss_jax.methods import build_method
from wsss_jax.sharding import check_divisible, data_mesh, global_batch
from wsss_jax.train import init_state, init_variables, make_train_step
from wsss_jax.weights import save_weights

CLASSES, CROP, BATCH = 5, 32, 16
FIELDS = {
    # Only cam does without dropout: pmap draws another mask on every device.
    "cam": dict(dropout=0.0),
    "seam": dict(small_scale=0.5, dims=(8, 8, 8)),
    "ssenet": dict(small_scale=0.5),
    # Prototypes and their memory are those of the global batch.
    "pss": dict(features=8, region_stride=4, memory=2, mask_scales=(1.0,), map_scales=(0.5,)),
    "ecsnet": dict(dims=(4, 6, 8), dilations=(1, 2), fill="noise"),
    "segmentation": dict(head=dict(name="large_fov", features=16, dilation=2)),
}
rng = np.random.default_rng(0)
valid = np.ones((BATCH, CROP, CROP), bool)
valid[1, 24:] = False
image = rng.integers(0, 256, (BATCH, CROP, CROP, 3), dtype=np.uint8) * valid[..., None]
segmentation = rng.integers(0, CLASSES + 1, (BATCH, CROP, CROP)).astype(np.uint8)
segmentation[3:9] = 255  # devices differ in the number of pixels that count
label = (rng.random((BATCH, CLASSES)) < 0.5).astype(np.float32)
label[:, 0] = 1
batch = {
    "image": image,
    "valid": valid,
    "label": label,
    "index": np.arange(BATCH, dtype=np.int32),
    "segmentation": segmentation,
}
# Plain descent that keeps the gradient as its state.
keep = optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda grads, state, params=None: (jax.tree.map(lambda g: -0.01 * g, grads), grads),
)


def difference(a, b):
    # The largest difference of two trees, relative to the largest value.
    def largest(tree):
        return max([np.abs(np.asarray(x)).max() for x in jax.tree.leaves(tree)] + [0.0])

    gap = jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), a, b)
    return float(largest(gap) / max(largest(b), 1e-30))


def train(method, params, variables, mesh, steps):
    state = init_state(method, keep, params, variables, 0, mesh)
    step = make_train_step(method, keep, params, mesh)
    losses, first = [], None
    for _ in range(steps):
        state, metrics = step(state, global_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
        first = first or jax.device_get((state.opt_state, state.state))
    return losses, first, state


def by_hand(method, params, variables):
    # The step as published programs write it: a part of the batch each, then the mean.
    def step(params, part):
        def loss(params):
            key = jax.random.key(0)
            return method.loss(params, variables, part, key, jnp.int32(0))[0]

        value, grads = jax.value_and_grad(loss)(params)
        return jax.lax.pmean((value, grads), "devices")

    count = jax.device_count()
    parts = {k: v.reshape(count, BATCH // count, *v.shape[1:]) for k, v in batch.items()}
    value, grads = jax.pmap(step, "devices", in_axes=(None, 0))(params, parts)
    first = jax.tree.map(lambda a: np.asarray(a)[0], grads)
    flat = {"/".join(k.key for k in path): g
            for path, g in jax.tree_util.tree_leaves_with_path(first)}
    return float(value[0]), flat


found = {"devices": jax.device_count()}
for name, fields in FIELDS.items():
    description = dict(name=name, backbone=dict(name="tiny", width=8), **fields)
    method = build_method(description, CLASSES)
    params, variables = init_variables(method, 0, CROP)
    one, (grads, statistics), _ = train(method, params, variables, data_mesh(jax.devices()[:1]), 1)
    many, (grads8, statistics8), state = train(method, params, variables, data_mesh(), 3)
    found[name] = {
        "loss": abs(many[0] - one[0]) / abs(one[0]),
        "gradients": difference(grads8, grads),
        "statistics": difference(statistics8, statistics),
        "losses": many,
        "placed_on": len(state.params["backbone"]["layer_0"]["conv"]["kernel"].sharding.device_set),
    }
    if name == "cam":
        value, by_path = by_hand(method, params, variables)
        found["pmap"] = {
            "loss": abs(many[0] - value) / abs(value),
            "gradients": difference(grads8, {k: by_path[k] for k in grads8}),
        }
        folder = Path(sys.argv[1])
        save_weights(folder / "weights.npz", params, variables)
        write_json(folder / "config.json", {"method": description})
        network = load_network(folder, CLASSES, "cam")
        maps = network.predict(image[:11], valid[:11])  # not a multiple of the devices
        weights = {"params": params, **variables}
        alone = jax.jit(method.predict)(weights, image[:11], valid[:11])["cam"]
        found["inference"] = {"shape": maps.shape, "difference": difference(maps, alone)}
try:
    check_divisible(12, data_mesh())
except UserError as error:
    found["refused"] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the program above measured; in a process of its own, for devices are counted once."""
    flags = (
        "--xla_force_host_platform_device_count=8",
        # It compiles longer than it runs.
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("network"))],
        cwd=REPOSITORY,
        env=dict(os.environ, XLA_FLAGS=" ".join(flags), JAX_PLATFORMS="cpu"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["devices"] == 8
    return result


@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradients_are_those_of_one_device(name: str, found: dict):
    assert found[name]["loss"] < 1e-5
    assert found[name]["gradients"] < 1e-5
    assert found[name]["statistics"] < 1e-5


@pytest.mark.parametrize("name", METHODS)
def test_training_runs_on_all_devices(name: str, found: dict):
    losses = found[name]["losses"]
    assert all(math.isfinite(loss) for loss in losses) and len(set(losses)) == 3
    assert found[name]["placed_on"] == 8
    if name == "cam":  # no dropout, so a few steps on one batch must help
        assert losses[2] < losses[1] < losses[0]


def test_the_compilers_reductions_are_those_of_a_pmap(found: dict):
    assert found["pmap"]["loss"] < 1e-5
    assert found["pmap"]["gradients"] < 1e-5


def test_inference_takes_any_number_of_images(found: dict):
    assert found["inference"]["shape"][0] == 11
    assert found["inference"]["difference"] < 1e-5


def test_a_batch_the_devices_cannot_share_is_refused(found: dict):
    assert "divisible by the 8 devices, found 12" in found["refused"]
    assert "set batch_size to 8" in found["refused"]
