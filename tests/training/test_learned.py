"""Trainings that learn nothing are recognized."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.reference.drawn_networks import Images
from tests.toys.sections import run_section
from wsss_jax.data.source import Record
from wsss_jax.stages.base import Context, Stage
from wsss_jax.stages.train import Train
from wsss_jax.training.learned import chance_loss, classification_loss, nothing_learned


class Labels(Images):
    """Photographs with labels of one's own."""

    def __init__(self, labels: list[list[int]]):
        super().__init__(*[(40, 40)] * len(labels))
        self._labels = labels

    def __getitem__(self, index: int) -> Record:
        label = np.array(self._labels[index], np.float32)
        return Record({**super().__getitem__(index), "label": label})  # pyright: ignore


def test_chance_is_the_entropy_of_the_labels():
    half = chance_loss(Labels([[1, 0, 0], [0, 1, 1]]))
    assert half == pytest.approx(np.log(2))
    quarter = chance_loss(Labels([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]]))
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert quarter == pytest.approx(entropy / 3, abs=1e-6)


def test_the_loss_is_that_of_the_end():
    rows = [{"step": step, "loss/cls": 100.0 / step, "er": 9.0} for step in range(1, 101)]
    expected = np.mean([100 / step for step in range(91, 101)])
    assert classification_loss(rows, 100) == pytest.approx(expected)
    assert (
        classification_loss([{"step": 1, "loss/cls1": 0.5}, {"step": 2, "miou": 0.1}], 100) == 0.5
    )
    assert classification_loss([{"step": 1, "loss": 0.5}], 1) is None


def test_worse_than_chance_is_told():
    assert "its loss at the end is 1.31" in nothing_learned(1.31, 0.69)
    assert nothing_learned(0.68, 0.69) and not nothing_learned(0.12, 0.69)
    assert not nothing_learned(None, 0.69) and not nothing_learned(0.1, 0.0)


@dataclasses.dataclass(frozen=True)
class Given(Context):
    def source(self, split: str) -> Any:
        return Labels([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])


def train(folder: Path, capsys: pytest.CaptureFixture[str], **settings: Any) -> tuple[Any, str]:
    folder.mkdir()
    ctx = Given(ConfigDict({"seed": 0}), folder, "train", folder)
    section = Stage.defaults(
        "train",
        split="train",
        method=dict(name="cam", backbone=dict(name="tiny", width=8)),
        augment=dict(crop=32, long_side=(32, 40)),
        batch_size=2,
        log_every=1,
        **settings,
    )
    return run_section(Train, ctx, section, {}), capsys.readouterr().out


def test_a_training_that_learns_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    metrics, out = train(tmp_path / "a", capsys, steps=3, optimizer=dict(lr=0.3))
    assert metrics["classification_loss"] > metrics["chance_loss"], metrics
    few, nothing = metrics["warnings"]
    assert few.startswith("3 steps are few: this method needs about 200, ")
    assert few.endswith("which --config.train.steps=200 makes")
    assert nothing.startswith("the classifier has learned nothing")
    assert f"[train] WARNING: {few}" in out and f"[train] WARNING: {nothing}" in out
    assert "starts from random numbers, because init_weights is empty" in out
    optimizer = dict(name="adamw", lr=0.01, schedule="constant")
    metrics, out = train(tmp_path / "b", capsys, epochs=50, optimizer=optimizer)
    assert metrics["classification_loss"] < 0.5 * metrics["chance_loss"]
    assert "warnings" not in metrics and "WARNING" not in out
