"""Batches that are on the devices before their steps, and where a run resumes from."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.toys.toy_training import batches, same, train
from tests.toys.waiting import until
from wsss_jax.ops.sharding import data_mesh
from wsss_jax.training import loop, placement
from wsss_jax.training.metrics import read_metrics
from wsss_jax.training.placement import BATCHES_AHEAD, placed_ahead


def test_two_batches_wait_on_the_devices_and_no_more(monkeypatch: pytest.MonkeyPatch):
    placed: list[int] = []
    place = placement.global_batch

    def noted(*arguments: Any) -> Any:
        placed.append(1)
        return place(*arguments)

    monkeypatch.setattr(placement, "global_batch", noted)
    ahead, plain = placed_ahead(batches(9), data_mesh()), batches(9)
    for taken in (1, 2, 3):
        host, devices = next(ahead)
        expected = next(plain)
        for name, value in expected.items():
            assert np.array_equal(host[name], value) and np.array_equal(devices[name], value)
            assert isinstance(devices[name], jax.Array)
        until(lambda taken=taken: len(placed) >= taken + BATCHES_AHEAD)
        time.sleep(0.1)
        assert len(placed) == taken + BATCHES_AHEAD
    ahead.close()
    with pytest.raises(ValueError, match="closed"):
        next(ahead)


def test_the_position_is_that_of_the_batch_that_was_returned_last():
    ahead = placed_ahead(batches(6), data_mesh())
    plain = list(batches(6))
    for _ in range(2):
        next(ahead)
    state = json.loads(json.dumps(ahead.get_state()))
    continued = [host["index"] for host, _ in ahead]
    assert len(continued) == 4
    for fresh in (placed_ahead(batches(6), data_mesh()), ahead):  # another process, and this one
        fresh.set_state(state)
        for (host, _), index, batch in zip(fresh, continued, plain[2:], strict=True):
            assert np.array_equal(host["index"], index)
            assert all(np.array_equal(host[name], value) for name, value in batch.items())
    # A run of an earlier version saved the position of the loader itself.
    loader = batches(6)
    for _ in range(2):
        next(loader)
    assert loader.get_state() == state


class PowerCut(Exception):
    pass


def cut_power() -> None:
    raise PowerCut


def test_a_run_that_was_killed_continues_with_the_next_untrained_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It was killed two steps after its checkpoint, with more batches on the devices."""
    trained: list[np.ndarray] = []
    make = loop.make_train_step

    def watched(*arguments: Any) -> Any:
        step_fn = make(*arguments)

        def step(state: Any, batch: Any) -> Any:
            trained.append(np.array(batch["image"]))
            return step_fn(state, batch)

        return step

    monkeypatch.setattr(loop, "make_train_step", watched)
    whole, _ = train(tmp_path / "whole", 9, checkpoint_every=4)
    expected = list(trained)
    trained.clear()

    with pytest.raises(PowerCut):
        train(tmp_path / "cut", 9, checkpoint_every=4, at={6: cut_power})
    assert len(trained) == 6
    saved = tmp_path / "cut" / "checkpoints" / "4" / "data" / "process_0-of-1.json"
    assert json.loads(saved.read_text()) == {"next_index": 4}
    again, _ = train(tmp_path / "cut", 9, checkpoint_every=4)
    assert same(again.params, whole.params) and same(again.opt_state, whole.opt_state)
    assert len(trained) == 6 + 5
    for one, other in zip(trained, expected[:6] + expected[4:], strict=True):
        assert np.array_equal(one, other)
    losses = [[row["loss"] for row in read_metrics(tmp_path / name)] for name in ("cut", "whole")]
    assert losses[0] == losses[1] and len(losses[0]) == 9


def test_no_thread_is_left_behind(tmp_path: Path):
    before = set(threading.enumerate())  # other tests may have left some
    train(tmp_path / "whole", 3)
    with pytest.raises(PowerCut):
        train(tmp_path / "cut", 9, at={2: cut_power})
    left = lambda: [t.name for t in set(threading.enumerate()) - before]  # noqa: E731
    until(lambda: not [name for name in left() if "grain-thread-prefetch" in name])
