"""The training loop: steps, bad numbers, signals, length."""

import dataclasses
import json
import math
import re
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.toys import toy_training
from tests.toys.host_reads import host_reads
from tests.toys.toy_training import SGD, Toy, batches, one_step, same, tiny_cam, train
from wsss_jax import console, interrupts
from wsss_jax.errors import Interrupted, UserError
from wsss_jax.methods.base import Aux, Step
from wsss_jax.methods.variables import init_variables
from wsss_jax.ops.sharding import target
from wsss_jax.stages.train import Train
from wsss_jax.training import loop
from wsss_jax.training.checkpoints import Checkpoints
from wsss_jax.training.metrics import read_metrics
from wsss_jax.training.optimizer import OptimizerSettings


@pytest.fixture(scope="module")
def cam() -> Any:
    return tiny_cam()


def test_a_step_moves_against_the_known_gradient():
    before, after, metrics, batch = one_step(Toy(), dataclasses.replace(SGD, weight_decay=0.1))
    gradient = before.params["head"] - batch["label"].mean(0)
    np.testing.assert_allclose(metrics["loss"], 0.5 * (gradient**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss/distance"], metrics["loss"])
    np.testing.assert_allclose(metrics["grad_norm"], (gradient**2).sum() ** 0.5, rtol=1e-6)
    decayed = gradient + 0.1 * before.params["head"]
    expected = before.params["head"] - 0.5 * decayed
    np.testing.assert_allclose(after.params["head"], expected, rtol=1e-6)
    assert int(after.step) == 1


def test_frozen_parameters_stay_bit_for_bit(tmp_path: Path):
    start, _ = init_variables(Toy(), 0)
    state, _ = train(tmp_path, 3, optimizer=dataclasses.replace(SGD, weight_decay=0.1))
    assert same(state.params["stem"], start["stem"])
    assert not same(state.params["head"], start["head"])


def test_learning_rate_zero_changes_nothing_but_the_step():
    optimizer = dataclasses.replace(SGD, lr=0.0, momentum=0.0, weight_decay=0.1)
    before, after, metrics, _ = one_step(Toy(), optimizer)
    assert same(before.params, after.params) and same(before.model_state, after.model_state)
    assert same(jax.random.key_data(before.rng), jax.random.key_data(after.rng))
    assert (int(before.step), int(after.step)) == (0, 1)
    assert metrics["grad_norm"] > 0


def test_a_network_learns_patches(cam: Any, tmp_path: Path):
    adamw = OptimizerSettings(name="adamw", lr=0.003)
    _, figures = train(tmp_path, 80, cam, adamw, checkpoint_every=80)
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
    fields: dict[str, Any] = {field: image}
    with pytest.raises(UserError) as error:
        train(tmp_path, steps, Toy(**fields))
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


@pytest.mark.parametrize(("drawn", "step"), [(2, 3), (5, 6), (6, 6)])
def test_a_signal_ends_the_run_after_saving_and_it_goes_on(drawn: int, step: int, tmp_path: Path):
    whole, _ = train(tmp_path / "whole", 6)
    handler = signal.getsignal(signal.SIGTERM)
    # The signal comes while the step `drawn` is drawn on the progress bar, so `step` is the last:
    # the one after it or, if the step was the last of the run anyway, that step.
    at = {drawn: lambda: signal.raise_signal(signal.SIGTERM)}
    with pytest.raises(Interrupted, match=f"stopped by SIGTERM after step {step}; everything is"):
        train(tmp_path / "cut", 6, at=at)
    assert signal.getsignal(signal.SIGTERM) is handler
    said: list[str] = []
    again, _ = train(tmp_path / "cut", 6, log=said.append)
    assert said.pop(0) == f"resuming after step {step} of 6"
    if step < 6:
        assert said.pop(0) == "compiling the first step"
        assert re.fullmatch(
            r"first step after [\d.]+ s \(compiling [\d.]+ s: \d+ programs compiled, \d+ from the"
            r" cache\)",
            said.pop(0),
        )
    assert not said
    assert same(again.params, whole.params) and same(again.opt_state, whole.opt_state)
    rows, expected = read_metrics(tmp_path / "cut"), read_metrics(tmp_path / "whole")
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]


def test_rows_of_the_log_do_not_depend_on_interruptions(tmp_path: Path):
    train(tmp_path / "whole", 8, log_every=3)

    def lost() -> None:
        raise KeyboardInterrupt

    for at, ending in (
        ({1: lambda: signal.raise_signal(signal.SIGTERM)}, Interrupted),
        ({5: lost}, KeyboardInterrupt),
        ({7: lambda: signal.raise_signal(signal.SIGTERM)}, Interrupted),
    ):
        with pytest.raises(ending):
            train(tmp_path / "cut", 8, at=at, log_every=3)
    train(tmp_path / "cut", 8, log_every=3)
    whole, cut = (
        [
            {name: value for name, value in row.items() if name != "images_per_second"}
            for row in read_metrics(tmp_path / name)
        ]
        for name in ("whole", "cut")
    )
    assert [row["step"] for row in whole] == [3, 6, 8]
    assert cut == whole


def test_a_signal_while_the_last_step_is_written_ends_the_run_when_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wait = Checkpoints.wait

    def interrupted(checkpoints: Checkpoints) -> None:
        signal.raise_signal(signal.SIGINT)
        wait(checkpoints)

    monkeypatch.setattr(Checkpoints, "wait", interrupted)
    with pytest.raises(Interrupted, match="stopped by SIGINT after step 3; everything is saved"):
        train(tmp_path, 3)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


def test_a_second_interrupt_does_not_wait_for_the_step(tmp_path: Path):
    at = {1: lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)]}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 6, at=at)


def test_a_request_is_answered_with_what_then_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    answers: list[str] = []
    monkeypatch.setattr(interrupts, "answer_with", answers.append)
    train(tmp_path / "a", 2)
    before, steps, after = answers
    assert before.startswith("stopping; what is finished is kept") and after == ""
    assert steps.startswith("stopping when the steps under way are finished and saved")
    answers.clear()
    monkeypatch.setattr(console, "is_quiet", lambda: True)
    train(tmp_path / "b", 2)
    assert set(answers) == {""}


def test_first_parameters_are_not_kept_beside_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[Any] = []

    def noted(*arguments: Any) -> Any:
        drawn.append(init_variables(*arguments))
        return drawn[-1]

    monkeypatch.setattr(toy_training, "init_variables", noted)
    arrays: list[bool] = []

    def look() -> None:
        arrays.extend(array.is_deleted() for array in jax.tree.leaves(drawn))

    train(tmp_path, 3, tiny_cam(), at={2: look})
    assert len(arrays) > 10 and all(arrays)


def test_length_of_a_run():
    def steps(**settings: int) -> int:
        train = Train(method=Toy(), optimizer=SGD, epochs=3, **settings)  # pyright: ignore
        return train.steps_for(50)

    assert steps(batch_size=8) == 18
    assert steps(batch_size=8, steps=5) == 5
    assert steps(batch_size=64) == 3


def test_the_host_waits_for_a_step_when_later_ones_are_dispatched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events: list[tuple[str, int]] = []
    losses: list[jax.Array] = []  # of all steps, kept alive so that each is known by its identity

    def read(array: jax.Array) -> None:
        events.extend(("wait", step) for step, one in enumerate(losses, 1) if one is array)

    make = loop.make_train_step

    def watched(*arguments: Any) -> Any:
        step_fn = make(*arguments)

        def step(state: Any, batch: Any) -> Any:
            state, metrics = step_fn(state, batch)
            losses.append(metrics["loss"])
            events.append(("dispatch", len(losses)))
            return state, metrics

        return step

    monkeypatch.setattr(loop, "make_train_step", watched)
    with host_reads(read):
        train(tmp_path, 9, checkpoint_every=6)
    waits = [event for event in events if event[0] == "wait"]
    assert waits == [("wait", step) for step in range(1, 10)]  # every figure, once
    dispatched = {step: events.index(("dispatch", step)) for step in range(1, 10)}
    for step in range(1, 10):
        # Before a checkpoint, here at 6 and 9, everything has to be known.
        later = min(step + loop.STEPS_AHEAD, 6 if step <= 6 else 9)
        at = events.index(("wait", step))
        assert at > dispatched[later]
        assert later == 9 or later == 6 or at < dispatched[later + 1]


class Counting(Toy):
    """A method that shows which share of the training a step completes, in pictures too."""

    def loss(self, step: Step):
        loss, aux = super().loss(step)
        assert step.total_steps == 4
        return loss, Aux(terms={"share": (step.step + 1) / step.total_steps}, maps=aux.maps)


def test_methods_know_the_length_of_the_training(tmp_path: Path):
    train(tmp_path, 4, Counting(), image_every=2)
    assert [row["loss/share"] for row in read_metrics(tmp_path)] == [0.25, 0.5, 0.75, 1]


def test_bad_numbers_are_found_within_a_few_steps(tmp_path: Path):
    """Without a checkpoint on the way, and with the images of that step."""
    steps = 9
    image = int(list(batches(3))[1]["index"][0])
    step, indices = first_step_with(image, 3)
    dispatched: list[int] = []
    at = {n: (lambda n=n: dispatched.append(n)) for n in range(1, steps + 1)}
    with pytest.raises(UserError) as error:
        train(tmp_path, steps, Toy(bad=image), at=at, checkpoint_every=100)
    assert f"not finite at step {step} with the images" in str(error.value)
    assert ", ".join(f"patch_{i}" for i in indices) in str(error.value)
    assert dispatched == list(range(1, step + loop.STEPS_AHEAD))
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, step))


def test_steps_and_their_pictures_are_traced_for_the_devices_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[str, int]] = []
    loss = Toy.loss

    def noted(method: Toy, step: Any) -> Any:
        seen.append(target())
        return loss(method, step)

    monkeypatch.setattr(Toy, "loss", noted)
    train(tmp_path / "plain", 2)
    alone = len(seen)
    train(tmp_path / "pictures", 2, image_every=1)
    assert len(seen) > 2 * alone
    assert set(seen) == {(jax.default_backend(), jax.device_count())}
