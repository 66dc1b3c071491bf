"""Eight devices give what one gives, and what a program that spells out its reductions gives."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.toys import light_methods
from tests.toys.compiler import FLAGS, devices

REPOSITORY = Path(__file__).resolve().parents[2]
VARIANTS = {
    # Prototypes are those of the global batch, and so is their memory.
    "pss_memory": dict(name="pss", memory=2),
    # Its random numbers belong to images, not to places in the batch.
    "ecsnet_noise": dict(name="ecsnet", fill="noise"),
    # Batch norm is trained twice in a step, by the images and by their tiles.
    "puzzle_cam_norm": dict(
        name="puzzle_cam", backbone=dict(name="tests.toys.normed", bn_momentum=0.1)
    ),
    # Without dropout, for pmap draws another mask on every device.
    "cam_alone": dict(name="cam", dropout=0.0),
}
CASES = {name: dict(name=name) for name in light_methods.trained_names()} | VARIANTS
# The variants above do all that the first three do, and SEAM does what SSENet does.
ALIKE = ("ecsnet", "pss", "puzzle_cam", "ssenet")
SOME = [pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in CASES]
PROGRAM = """
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.reference.drawn_networks import Images, maps_of, network_maps, summed
from tests.toys import light_methods
from tests.toys.light_methods import CLASSES, CROP, FIELDS, TINY
from tests.toys.steps import loss_function
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.inference.multi_scale import MultiScale
from wsss_jax.inference.network import load_network
from wsss_jax.methods.prediction import prediction
from wsss_jax.methods.variables import init_variables
from wsss_jax.ops.sharding import check_divisible, data_mesh, global_batch
from wsss_jax.training.step import init_state, make_train_step
from wsss_jax.weights.npz import save_weights

BATCH = 16
batch = light_methods.make_batch(BATCH)
batch["segmentation"][3:9] = 255  # devices differ in the number of pixels that count
# Plain descent that keeps the gradient as its state.
keep = optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda grads, state, params=None: (jax.tree.map(lambda g: -0.01 * g, grads), grads),
)


def difference(a, b):
    # The largest difference of two trees, relative to the largest value of the array it is in, or
    # to a hundredth of the largest one of all where that is more.
    largest = [np.abs(np.asarray(leaf)).max() for leaf in jax.tree.leaves(b)]
    gaps = [
        np.abs(np.asarray(x) - np.asarray(y)).max()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]
    least = max([max(largest, default=0.0) / 100, 1e-30])
    return float(np.max([g / max(n, least) for g, n in zip(gaps, largest)], initial=0.0))


def train(method, params, variables, mesh, steps):
    state = init_state(method, keep, params, variables, 0, mesh)
    step = make_train_step(method, keep, params, mesh)
    losses, after = [], []
    for _ in range(steps):
        state, metrics = step(state, global_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
        after.append(jax.device_get((state.opt_state, state.model_state, state.extra)))
    return losses, [*zip(*after[:2])], state


def by_hand(method, params, variables):
    # The step as published programs write it: a part of the batch each, then the mean.
    def step(params, part):
        def loss(params):
            key = jax.random.key(0)
            return loss_function(method)(params, variables, part, key, jnp.int32(0))[0]

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
for case, fields in json.loads(sys.argv[2]).items():
    method = light_methods.make(**fields)
    params, variables = init_variables(method, 0)
    alone = data_mesh(jax.devices()[:1])
    one, before, _ = train(method, params, variables, alone, 2)
    many, after, state = train(method, params, variables, data_mesh(), 3)
    (grads, statistics, kept), (grads8, statistics8, kept8) = before, after
    found[case] = {
        # The second step sees what the first one left.
        "loss": float(np.max([abs(m - o) / abs(o) for m, o in zip(many, one)])),
        "gradients": difference(grads8[0], grads[0]),
        "second_gradients": difference(grads8[1], grads[1]),
        "statistics": difference(statistics8, statistics),
        "kept": difference(kept8, kept),
        "things_kept": len(jax.tree.leaves(kept[0])),
        "losses": many,
        "placed_on": len(jax.tree.leaves(state.params)[0].sharding.device_set),
    }
    if case == "cam_alone":
        value, by_path = by_hand(method, params, variables)
        found["pmap"] = {
            "loss": abs(many[0] - value) / abs(value),
            "gradients": difference(grads8[0], {k: by_path[k] for k in grads8[0]}),
        }
        folder = Path(sys.argv[1])
        save_weights(folder / "weights.npz", params, variables)
        description = {"backbone": TINY, **FIELDS.get("cam", {}), **fields}
        write_json(folder / "config.json", {"method": description})
        network = load_network(folder, CLASSES, "cam")
        few = batch["image"][:11], batch["valid"][:11]  # not a multiple of the devices
        maps = network.predict(*few)
        plain = jax.jit(method.predict)({"params": params, **variables}, *few)["cam"]
        found["inference"] = {"shape": maps.shape, "difference": difference(maps, plain)}
        images = Images((40, 40), (45, 61), (33, 20))
        sums = {}
        for where in ("host", "device"):
            how = MultiScale(scales=(0.5, 1.0), max_buckets=1, sum_on=where)
            every = network_maps(images, network, how, lambda _: np.arange(2))
            sums[where] = [summed(one) for _, one in maps_of(every, range(3))]
        found["summed"] = {
            "shapes": [one.shape for one in sums["device"]],
            "difference": max(map(difference, sums["device"], sums["host"])),
        }
found["untrained"] = {}
for name in {*light_methods.names()} - {*light_methods.trained_names()}:
    method = light_methods.make(name)
    params, variables = init_variables(method, 0)
    given = {"params": params, **variables}, batch["image"], batch["valid"]
    for output in method.outputs:
        maps = prediction(method, output, data_mesh())(*given)
        plain = jax.jit(method.predict)(*given)[output]
        found["untrained"][f"{name} {output}"] = {
            "difference": difference(maps, plain),
            "largest": float(np.abs(maps).max()),
            "placed_on": len(maps.sharding.device_set),
        }
try:
    check_divisible(12, data_mesh())
except UserError as error:
    found["refused"] = str(error)
print(json.dumps(found))
"""


def measured(folder: Path, names: Iterable[str]) -> dict:
    """What the program above measures; in a process of its own, for devices are counted once."""
    flags = f"{devices(8)} {FLAGS}"  # it compiles longer than it runs
    cases = json.dumps({name: CASES[name] for name in names})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), cases],
        cwd=REPOSITORY,
        env=dict(os.environ, XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["devices"] == 8
    return result


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return measured(tmp_path_factory.mktemp("network"), [n for n in CASES if n not in ALIKE])


@pytest.fixture(scope="module")
def found_alike(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return measured(tmp_path_factory.mktemp("network"), ALIKE)


@pytest.fixture
def case(name: str, request: pytest.FixtureRequest) -> dict:
    return request.getfixturevalue("found_alike" if name in ALIKE else "found")[name]


@pytest.mark.parametrize("name", SOME)
def test_loss_and_gradients_are_those_of_one_device(name: str, case: dict):
    assert case["loss"] < 1e-5
    gradients = case["gradients"], case["second_gradients"]
    # AffinityNet's loss has a kink wherever two of a million features are equal, and rounding
    # decides on the side: one of two steps should have no such pair.
    assert (min(gradients) if name == "affinity" else gradients[0]) < 1e-5
    assert case["statistics"] < 1e-5
    assert case["kept"] < 1e-5
    if name.startswith("pss"):  # the support, and the queue, which the second step learns from
        assert case["things_kept"] > 10
        assert case["second_gradients"] < 1e-5


@pytest.mark.parametrize("name", SOME)
def test_training_runs_on_all_devices(name: str, case: dict):
    losses = case["losses"]
    assert all(math.isfinite(loss) for loss in losses) and len(set(losses)) == 3
    assert case["placed_on"] == 8
    if name == "cam_alone":  # no dropout, so a few steps on one batch must help
        assert losses[2] < losses[1] < losses[0]


def test_the_compilers_reductions_are_those_of_a_pmap(found: dict):
    assert found["pmap"]["loss"] < 1e-5
    assert found["pmap"]["gradients"] < 1e-5


def test_inference_takes_any_number_of_images(found: dict):
    assert found["inference"]["shape"][0] == 11
    assert found["inference"]["difference"] < 1e-5


def test_networks_that_are_not_trained_predict_on_all_devices(found: dict):
    assert "lpcam cam" in found["untrained"]
    for one in found["untrained"].values():
        assert one["difference"] < 1e-5 and one["largest"] > 0.01 and one["placed_on"] == 8


def test_sums_on_eight_devices_equal_those_on_the_host(found: dict):
    assert found["summed"]["shapes"] == [[2, 40, 40], [2, 45, 61], [2, 33, 20]]
    assert found["summed"]["difference"] < 1e-5


def test_a_batch_the_devices_cannot_share_is_refused(found: dict):
    message = "expected a batch size divisible by the number of devices, 8, found 12: set"
    assert found["refused"].startswith(f"{message} batch_size to 8")
