"""What a run leaves behind: checkpoints, whole and damaged, and pictures."""

import json
import os
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.toys.toy_training import same, train
from wsss_jax.errors import UserError
from wsss_jax.training.metrics import read_metrics
from wsss_jax.types import TrainState
from wsss_jax.viz.map_pictures import map_pictures


def array_file(checkpoint: Path) -> Path:
    """The largest file: arrays of the state."""
    return max(checkpoint.rglob("state/**/d/*"), key=lambda path: path.stat().st_size)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate_with_checksum(folder: Path, path: Path) -> None:
    truncate(path)
    sums = json.loads((folder / "checksums.json").read_text())
    content = path.read_bytes()
    sums[path.relative_to(folder).as_posix()] = [len(content), zlib.crc32(content)]
    (folder / "checksums.json").write_text(json.dumps(sums))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda folder: truncate(array_file(folder)),
    "changed": lambda folder: flip_a_bit(array_file(folder)),
    "missing": lambda folder: array_file(folder).unlink(),
    "checksums.json is unreadable": lambda folder: truncate(folder / "checksums.json"),
    "checksums.json is unreadable (a list)": lambda folder: (folder / "checksums.json").write_text(
        "[1, 2]"
    ),
    "checksums.json is missing": lambda folder: (
        (folder / "checksums.json").unlink(),
        flip_a_bit(array_file(folder)),
    ),
    "has no checksum": lambda folder: (folder / "checksums.json").write_text("{}"),
    "log.json changed": lambda folder: flip_a_bit(folder / "log.json"),
    # Damaged before it got its checksums.
    "process_0-of-1.json, found something else": lambda folder: truncate_with_checksum(
        folder, folder / "data" / "process_0-of-1.json"
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
    found = found.partition(" (")[0]
    said: list[str] = []
    again, _ = train(tmp_path, 4, log=said.append)
    assert said[0].startswith("the checkpoint of step 4 is damaged (") and found in said[0]
    assert said[1:3] == ["resuming after step 2 of 4", "compiling the first step"]
    assert len(said) == 4 and said[3].startswith("first step after ")
    assert same(again.params, state.params) and same(again.opt_state, state.opt_state)
    said.clear()
    train(tmp_path, 4, log=said.append)  # the damaged one was replaced
    assert said == ["resuming after step 4 of 4"]


def test_nothing_but_damaged_checkpoints(trained: tuple[Path, TrainState], tmp_path: Path):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    for step in ("2", "4"):
        truncate(array_file(tmp_path / "checkpoints" / step))
    with pytest.raises(UserError, match="found 2 damaged: delete that folder to start again"):
        train(tmp_path, 4)
    shutil.rmtree(tmp_path / "checkpoints")
    anew, _ = train(tmp_path, 4)
    assert same(anew.params, trained[1].params)


@pytest.mark.parametrize("rows", [slice(1, None), slice(None, 2)])
def test_a_shortened_log_is_told_and_recorded(
    rows: slice, trained: tuple[Path, TrainState], tmp_path: Path
):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(True)[rows]))
    said: list[str] = []
    _, figures = train(tmp_path, 4, log=said.append)
    kept = len(range(4)[rows])
    (warning,) = figures["warnings"]
    assert warning.startswith(
        f"expected 4 rows of figures up to step 4 in {log}, found {kept}: the weights are not"
    )
    assert said[:2] == ["resuming after step 4 of 4", f"WARNING: {warning}"]
    # Later checkpoints know the shortened log, and what it lost.
    assert train(tmp_path, 6)[1]["warnings"] == [warning]
    assert train(tmp_path, 6)[1]["warnings"] == [warning]
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    assert "warnings" not in train(tmp_path, 4)[1]


@pytest.mark.parametrize("between", [-(10**6), 10**6])
def test_a_clock_that_is_set_changes_nothing(
    between: int, trained: tuple[Path, TrainState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now, ahead = time.time, [0]
    monkeypatch.setattr(time, "time", lambda: now() + ahead[0])
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))

    def set_back() -> None:
        ahead[0] -= 10**5

    train(tmp_path, 2, at={1: set_back})
    ahead[0] += between
    said: list[str] = []
    state, figures = train(tmp_path, 4, at={3: set_back}, log=said.append)
    assert said[0] == "resuming after step 2 of 4"
    assert same(state.params, trained[1].params) and same(state.opt_state, trained[1].opt_state)
    assert figures["seconds"] > 0 and figures["seconds_to_first_step"] > 0
    assert all(row["images_per_second"] > 0 for row in read_metrics(tmp_path))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]


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
