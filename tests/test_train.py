"""The training loop: steps, bad numbers, signals, checkpoints, weights."""

import dataclasses
import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsss_jax.checkpoints import Checkpoints
from wsss_jax.data.augment import Augment
from wsss_jax.data.loader import training_batches
from wsss_jax.data.source import Record
from wsss_jax.errors import Interrupted, UserError
from wsss_jax.map_pictures import map_pictures
from wsss_jax.methods import base, build_method
from wsss_jax.progress import Progress
from wsss_jax.sharding import data_mesh, global_batch
from wsss_jax.stages.train import steps_of
from wsss_jax.train import (
    Run,
    Schedule,
    fit,
    init_state,
    init_variables,
    make_optimizer_for,
    make_train_step,
    variable_shapes,
)
from wsss_jax.types import Aux, ParamRule, TrainState
from wsss_jax.weights import load_weights, save_weights
from wsss_jax.writer import read_metrics

CLASSES, CROP, BATCH = 3, 32, 4
SGD = dict(lr=0.5, momentum=0.9, weight_decay=0.0, schedule="constant")
PLAIN = Augment(crop=CROP, long_side=None, flip=0.0, jitter_p=0.0, random_position=False)


class Points(nn.Module):
    """Two vectors: one to train, one that stays."""

    @nn.compact
    def __call__(self, x, valid=None, *, train: bool = False):
        self.param("stem", nn.initializers.normal(), (CLASSES,))
        return x[:, 0, 0] + self.param("head", nn.initializers.normal(), (CLASSES,))


@dataclasses.dataclass(frozen=True)
class Toy(base.Method):
    """Half the squared distance of `head` to the batch's mean label: its gradient is known.

    The loss of a batch with the image `bad` is not a number; `worse` spoils the gradient only.
    """

    num_classes: int = CLASSES
    bad: int = -1
    worse: int = -1

    def model(self) -> nn.Module:
        return Points()

    def param_rules(self) -> tuple[ParamRule, ...]:
        return ParamRule("stem", frozen=True), ParamRule(".*")

    def loss(self, params, state, batch, rng, step, extra=()):
        loss = 0.5 * jnp.sum((params["head"] - batch["label"].mean(0)) ** 2)
        loss += jnp.where((batch["index"] == self.bad).any(), jnp.nan, 0.0)
        # The square root of zero is finite, its slope is not.
        spoilt = (batch["index"] == self.worse).any()
        loss += jnp.sqrt(jnp.where(spoilt, 0.0, 1.0) + 0.0 * params["head"].sum()) - 1.0
        loss += jnp.where(spoilt, 1.0, 0.0)
        maps = {"cam": jnp.broadcast_to(params["head"], (BATCH, 2, 2, CLASSES))}
        return loss, Aux(terms={"distance": loss}, state=state, maps=maps)

    def predict(self, variables, images, valid):
        return {}


@dataclasses.dataclass(frozen=True)
class Patches:
    """Noise with a patch in the colour of the image's only class."""

    count: int = 12
    classes: tuple[str, ...] = ("red", "green", "blue")
    digest: str = "patches"

    @property
    def ids(self) -> list[str]:
        return [f"patch_{i}" for i in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        rng = np.random.default_rng(index)
        image = rng.integers(60, 120, (CROP, CROP, 3)).astype(np.uint8)
        top, left = rng.integers(0, CROP // 2, 2)
        image[top : top + 16, left : left + 16, 2 - index % 3] = 250
        label = (np.arange(CLASSES) == index % 3).astype(np.float32)
        data = cv2.imencode(".png", image)[1].tobytes()
        return Record(id=self.ids[index], image=data, label=label, segmentation=None)


class Bar(Progress):
    """Calls `at[step]` when that step is done."""

    def __init__(self, total: int, label: str, unit: str, initial: int, at: dict[int, Callable]):
        super().__init__(total, label, unit, False, initial)
        self._at, self._step = at, initial

    def update(self, count: int = 1, **figures: float | str) -> None:
        self._step += count
        if count and self._step in self._at:
            self._at[self._step]()


def batches(steps: int):
    source: Any = Patches()
    return training_batches(
        source, batch_size=BATCH, augment=PLAIN, seed=1, steps=steps, num_threads=1
    )


def train(
    folder: Path,
    steps: int,
    method: Any = None,
    optimizer: dict[str, Any] = SGD,
    at: dict[int, Callable] | None = None,
    log: Callable[[str], None] = lambda _: None,
    image_every: int = 0,
    checkpoint_every: int = 2,
) -> tuple[TrainState, dict]:
    """A run as the stage has it; of the checkpoints two are kept."""
    method = method or Toy()
    params, variables = init_variables(method, 0, CROP)
    checkpoints = Checkpoints(folder / "checkpoints")
    run = Run(
        method=method,
        optimizer_config=optimizer,
        mesh=data_mesh(),
        schedule=Schedule(steps, 1, image_every, checkpoint_every),
        batch_size=BATCH,
        batches=batches(steps),
        checkpoints=checkpoints,
        folder=folder,
        ids=Patches().ids,
        log=log,
        progress=lambda total, label, unit, initial: Bar(total, label, unit, initial, at or {}),
    )
    try:
        return fit(run, params, variables, seed=0)
    finally:
        checkpoints.close()


def same(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


def one_step(method: Any, optimizer: dict[str, Any]) -> tuple[TrainState, TrainState, dict, dict]:
    """(state before, state after, metrics, batch) of a single step."""
    params, variables = init_variables(method, 0, CROP)
    transform = make_optimizer_for(method, params, optimizer, 10)
    mesh = data_mesh()
    state = init_state(method, transform, params, variables, 0, mesh)
    before = jax.tree.map(jnp.copy, state)  # the step consumes its argument
    batch = next(batches(1))
    step = make_train_step(method, transform, params, mesh)
    after, metrics = step(state, global_batch(batch, mesh))
    return before, after, metrics, batch


def test_a_step_moves_against_the_known_gradient():
    before, after, metrics, batch = one_step(Toy(), {**SGD, "weight_decay": 0.1})
    gradient = before.params["head"] - batch["label"].mean(0)
    np.testing.assert_allclose(metrics["loss"], 0.5 * (gradient**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss/distance"], metrics["loss"])
    np.testing.assert_allclose(metrics["grad_norm"], (gradient**2).sum() ** 0.5, rtol=1e-6)
    decayed = gradient + 0.1 * before.params["head"]
    expected = before.params["head"] - 0.5 * decayed
    np.testing.assert_allclose(after.params["head"], expected, rtol=1e-6)
    assert int(after.step) == 1


def test_frozen_parameters_stay_bit_for_bit(tmp_path: Path):
    start, _ = init_variables(Toy(), 0, CROP)
    state, _ = train(tmp_path, 3, optimizer={**SGD, "weight_decay": 0.1})
    assert same(state.params["stem"], start["stem"])
    assert not same(state.params["head"], start["head"])


@pytest.fixture(scope="module")
def cam() -> Any:
    return build_method(dict(name="cam", dropout=0.0, backbone=dict(name="tiny", width=8)), CLASSES)


def test_learning_rate_zero_changes_nothing_but_the_step():
    optimizer = {**SGD, "lr": 0.0, "momentum": 0.0, "weight_decay": 0.1}
    before, after, metrics, _ = one_step(Toy(), optimizer)
    assert same(before.params, after.params) and same(before.state, after.state)
    assert same(jax.random.key_data(before.rng), jax.random.key_data(after.rng))
    assert (int(before.step), int(after.step)) == (0, 1)
    assert metrics["grad_norm"] > 0


def test_a_network_learns_patches(cam: Any, tmp_path: Path):
    _, figures = train(tmp_path, 80, cam, dict(name="adam", lr=0.003), checkpoint_every=80)
    losses = [row["loss"] for row in read_metrics(tmp_path)]
    assert len(losses) == 80 and losses[0] > 0.5
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
    assert figures["steps"] == 80 and figures["images_per_second"] > 0


def first_step_with(image: int, steps: int) -> tuple[int, np.ndarray]:
    for step, batch in enumerate(batches(steps), 1):
        if image in batch["index"]:
            return step, batch["index"]
    raise AssertionError("every image comes once an epoch")


@pytest.mark.parametrize("field", ["bad", "worse"])
def test_bad_numbers_stop_the_run_and_are_not_saved(field: str, tmp_path: Path):
    steps = 6
    image = int(list(batches(steps))[2]["index"][1])  # seen first in the third step of an epoch
    step, indices = first_step_with(image, steps)
    assert step == 3
    with pytest.raises(UserError) as error:
        train(tmp_path, steps, Toy(**{field: image}))
    text = str(error.value)
    found = {"bad": "loss, loss/distance", "worse": "grad_norm"}[field]
    assert f"found {found} not finite at step {step} with the images" in text and "\n" not in text
    assert ", ".join(f"patch_{i}" for i in indices) in text
    assert "last good checkpoint: step 2;" in text
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2"]
    # A line of the log that is no number would break every reader.
    assert all(math.isfinite(row["loss"]) for row in read_metrics(tmp_path))


def test_bad_numbers_before_any_checkpoint(tmp_path: Path):
    image = int(next(batches(3))["index"][0])
    with pytest.raises(UserError, match=r"at step 1 .* there is no checkpoint yet"):
        train(tmp_path, 3, Toy(bad=image))


@pytest.mark.parametrize("step", [3, 6])
def test_a_signal_ends_the_run_after_saving_and_it_goes_on(step: int, tmp_path: Path):
    whole, _ = train(tmp_path / "whole", 6)
    handler = signal.getsignal(signal.SIGTERM)
    # The signal comes while the step before is drawn on the progress bar, so `step` is the last.
    at = {step - 1: lambda: signal.raise_signal(signal.SIGTERM)}
    with pytest.raises(Interrupted, match=f"stopped by SIGTERM after step {step}; everything is"):
        train(tmp_path / "cut", 6, at=at)
    assert signal.getsignal(signal.SIGTERM) is handler
    said: list[str] = []
    again, _ = train(tmp_path / "cut", 6, log=said.append)
    assert said == [f"going on after step {step} of 6"]
    assert same(again.params, whole.params) and same(again.opt_state, whole.opt_state)
    rows, expected = read_metrics(tmp_path / "cut"), read_metrics(tmp_path / "whole")
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]


def test_a_second_interrupt_does_not_wait_for_the_step(tmp_path: Path):
    at = {1: lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)]}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 6, at=at)


def array_file(checkpoint: Path) -> Path:
    """The largest file: arrays of the state."""
    return max(checkpoint.rglob("state/**/d/*"), key=lambda path: path.stat().st_size)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda folder: truncate(array_file(folder)),
    "changed": lambda folder: flip_a_bit(array_file(folder)),
    "missing": lambda folder: array_file(folder).unlink(),
    "checksums.json is unreadable": lambda folder: truncate(folder / "checksums.json"),
    # Made by a version without checksums: the iterator's state is what Orbax reads first.
    "JSONDecodeError": lambda folder: (
        (folder / "checksums.json").unlink(),
        truncate(folder / "data" / "process_0-of-1.json"),
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainState]:
    folder = tmp_path_factory.mktemp("trained")
    state, _ = train(folder, 4, image_every=2)
    return folder, state


@pytest.mark.parametrize("found", DAMAGES)
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    found: str, trained: tuple[Path, TrainState], tmp_path: Path
):
    whole, state = trained
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    DAMAGES[found](tmp_path / "checkpoints" / "4")
    said: list[str] = []
    again, _ = train(tmp_path, 4, log=said.append)
    assert said[0].startswith("the checkpoint of step 4 is damaged (") and found in said[0]
    assert said[1:] == ["going on after step 2 of 4"]
    assert same(again.params, state.params) and same(again.opt_state, state.opt_state)
    said.clear()
    train(tmp_path, 4, log=said.append)  # the damaged one was replaced
    assert said == ["going on after step 4 of 4"]


def test_nothing_but_damaged_checkpoints(trained: tuple[Path, TrainState], tmp_path: Path):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    for step in ("2", "4"):
        truncate(array_file(tmp_path / "checkpoints" / step))
    with pytest.raises(UserError, match="found 2 damaged: delete that folder to train anew"):
        train(tmp_path, 4)
    shutil.rmtree(tmp_path / "checkpoints")
    anew, _ = train(tmp_path, 4)
    assert same(anew.params, trained[1].params)


def test_what_a_killed_save_leaves_behind_is_removed(
    trained: tuple[Path, TrainState], tmp_path: Path
):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoints"
    (folder / "4").rename(folder / "4.orbax-checkpoint-tmp")
    again, _ = train(tmp_path, 4)
    assert same(again.params, trained[1].params)
    assert sorted(p.name for p in folder.iterdir()) == ["2", "4"]


def test_pictures_of_the_maps_go_to_tensorboard(trained: tuple[Path, TrainState]):
    (events,) = (trained[0] / "tensorboard").iterdir()
    assert events.read_bytes().count(b"PNG") == 4  # image and cam, at steps 2 and 4


def test_pictures_show_the_labels_strongest_map():
    batch = {
        "image": np.full((6, 8, 8, 3), 100, np.uint8),
        "label": np.tile(np.array([1, 0, 0], np.float32), (6, 1)),
    }
    left = np.zeros((6, 2, 2, 4), np.float32)
    left[:, :, 0, 1] = 5.0  # behind the background's channel: the label's class
    left[:, :, :, 2] = 9.0  # not in the label
    drawn = map_pictures(batch, {"cam": jnp.asarray(left), "none": jnp.zeros((6, 2, 2, 3))})
    assert {name: value.shape for name, value in drawn.items()} == {
        name: (4, 8, 8, 3) for name in ("image", "cam", "none")
    }
    assert len(np.unique(drawn["none"])) <= 3  # flat, not noise
    assert drawn["cam"][0, 0, 0].astype(int).sum() > drawn["cam"][0, 0, -1].astype(int).sum()


def test_weights_of_another_network_are_refused(cam: Any, tmp_path: Path):
    shapes = variable_shapes(cam)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), shapes[0])
    save_weights(tmp_path / "weights.npz", params, {})
    loaded, _ = load_weights(tmp_path / "weights.npz", *shapes)
    assert same(loaded, params)
    for other in (
        dict(name="cam", backbone=dict(name="tiny", width=16)),
        dict(name="seam", backbone=dict(name="tiny", width=8)),
    ):
        with pytest.raises(UserError, match=r"weights of this network .* found another one's"):
            load_weights(tmp_path / "weights.npz", *variable_shapes(build_method(other, CLASSES)))


def test_a_backbone_is_taken_over_alone(cam: Any, tmp_path: Path):
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: rng.normal(size=a.shape).astype(a.dtype), variable_shapes(cam)[0]
    )
    save_weights(tmp_path / "weights.npz", params, {})
    other = build_method(dict(name="seam", backbone=dict(cam.backbone)), CLASSES)
    fresh, variables = init_variables(other, 0, CROP)
    loaded, _ = load_weights(tmp_path / "weights.npz", fresh, variables, "backbone")
    assert same(loaded["backbone"], params["backbone"])
    assert loaded.keys() == fresh.keys()
    assert all(same(loaded[name], fresh[name]) for name in fresh if name != "backbone")
    wider = build_method(dict(name="cam", backbone=dict(name="tiny", width=16)), CLASSES)
    with pytest.raises(UserError, match="weights of this backbone"):
        load_weights(tmp_path / "weights.npz", *variable_shapes(wider), "backbone")


def test_damaged_weights_are_refused(tmp_path: Path):
    params, variables = init_variables(Toy(), 0, CROP)
    path = tmp_path / "weights.npz"
    with pytest.raises(UserError, match="found no such file: train first"):
        load_weights(path, params, variables)
    save_weights(path, params, variables)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"params/head") + 150] ^= 1  # in the numbers: the archive's checksum tells
    for content in (whole[: len(whole) // 2], b"", b"weights", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="found a damaged file"):
            load_weights(path, params, variables)


def test_length_of_a_run():
    assert steps_of(dict(batch_size=8, epochs=3), 50) == 18
    assert steps_of(dict(batch_size=8, epochs=3, steps=5), 50) == 5
    assert steps_of(dict(batch_size=64, epochs=3), 50) == 3
