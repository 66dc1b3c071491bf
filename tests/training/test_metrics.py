import errno
import json
import os
import struct
import time

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import RecordWriter

from wsss_jax.errors import UserError
from wsss_jax.training import events as events_module
from wsss_jax.training.metrics import MetricWriter, read_metrics
from wsss_jax.viz.overlay import HEAT_COLORS, cam_overlay


def _lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _events(folder):
    """Every event of the TensorBoard files, in the order TensorBoard reads them."""
    events = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):  # record: length, its checksum, bytes, their checksum
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event()
            event.ParseFromString(data[at + 12 : at + 12 + length])
            events.append(event)
            at += 16 + length
    return events


def test_scalars_reach_the_lines_and_tensorboard(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.scalars(1, {"loss": 0.5, "loss/cls": np.float32(0.25), "lr": np.array([0.01])})
        assert _lines(tmp_path)[0]["loss"] == 0.5, "a line is on disk before close"
        writer.scalars(2, {"loss": 0.4})
    assert _lines(tmp_path) == [
        {"step": 1, "loss": 0.5, "loss/cls": 0.25, "lr": 0.01},
        {"step": 2, "loss": 0.4},
    ]
    scalars = [
        (event.step, value.tag, value.simple_value)
        for event in _events(tmp_path)
        for value in event.summary.value
    ]
    assert (1, "loss/cls", 0.25) in scalars
    assert (2, "loss", pytest.approx(0.4)) in scalars
    assert len(scalars) == 4


def test_images_reach_tensorboard(tmp_path):
    image = np.full((4, 6, 3), 200, np.uint8)
    with MetricWriter(tmp_path) as writer:
        writer.images(7, {"cam of a dog": image, "batch": np.stack([image, image])})
    found = {
        value.tag: (event.step, value.image.height, value.image.width)
        for event in _events(tmp_path)
        for value in event.summary.value
    }
    assert found == {"cam_of_a_dog": (7, 4, 6), "batch": (7, 4, 12)}


def test_resumed_run_has_each_step_once(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.scalars(step, {"loss": float(step)})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 6, "lo')  # killed while writing
    with MetricWriter(tmp_path, resume_step=3) as writer:
        assert [row["step"] for row in _lines(tmp_path)] == [1, 2, 3]
        writer.scalars(4, {"loss": 40.0})
    assert [(row["step"], row["loss"]) for row in _lines(tmp_path)] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 40.0),
    ]
    purged = [event.step for event in _events(tmp_path) if event.HasField("session_log")]
    assert purged[-1] == 4, "TensorBoard hides the events from here on"


def test_event_files_are_in_order_whatever_the_clock_says(tmp_path, monkeypatch):
    seconds = (2e9, 1e9, 3e9, 1e9, 3e9)
    for step, second in enumerate(seconds):
        monkeypatch.setattr(time, "time", lambda second=second: second)
        with MetricWriter(tmp_path, resume_step=step) as writer:
            writer.scalars(step + 1, {"loss": 1.0})
    begun = [event.step for event in _events(tmp_path) if event.HasField("session_log")]
    assert begun == [step + 1 for step in range(len(seconds))]


def test_a_fresh_run_starts_over(tmp_path):
    for loss in (1.0, 2.0):
        with MetricWriter(tmp_path) as writer:
            writer.scalars(1, {"loss": loss})
    assert _lines(tmp_path) == [{"step": 1, "loss": 2.0}]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2, "no event file is overwritten"


def test_not_finite_stays_valid_json(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.scalars(1, {"loss": float("nan"), "norm": float("inf"), "lr": 0.1})
    assert _lines(tmp_path) == [{"step": 1, "loss": None, "norm": None, "lr": 0.1}]


def test_disabled_writer_touches_nothing(tmp_path):
    with MetricWriter(tmp_path / "run", enabled=False) as writer:
        writer.scalars(1, {"loss": 1.0})
        writer.images(1, {"cam": np.zeros((2, 2, 3), np.uint8)})
    assert not (tmp_path / "run").exists()


def test_close_twice(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.scalars(12, {"loss": 0.31214, "lr": 0.01})
    writer.close()
    writer.close()
    assert _lines(tmp_path) == [{"step": 12, "loss": 0.31214, "lr": 0.01}]


def test_read_metrics_keeps_the_later_of_two_lines(tmp_path):
    assert read_metrics(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 2, "loss": 1}\nrubbish\n{"loss": 9}\n[1]\n{"step": 1, "loss": 3}\n'
        '{"step": 2, "loss": 5}\n'
    )
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 3}, {"step": 2, "loss": 5}]
    assert read_metrics(tmp_path, last_step=1) == [{"step": 1, "loss": 3}]


def test_an_evaluators_line_joins_that_of_its_step(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in (1, 2):
            writer.scalars(step, {"loss": 1.0 / step})
        writer.scalars(2, {"val/miou": 0.25})
    whole = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5, "val/miou": 0.25}]
    assert read_metrics(tmp_path) == whole
    with MetricWriter(tmp_path, resume_step=2) as writer:
        writer.scalars(3, {"loss": 0.1})
    assert read_metrics(tmp_path) == [*whole, {"step": 3, "loss": 0.1}]


NO_SPACE = {errno.ENOSPC: "no space", errno.EDQUOT: "no space", errno.EFBIG: "ulimit -f"}


@pytest.mark.parametrize("number", NO_SPACE)
@pytest.mark.parametrize("written", [0, 3, 4, 5])
def test_full_disk_is_one_clear_line(number, written, tmp_path, monkeypatch):
    """Whether it is the head of the events, figures, an image or the end that cannot be written."""
    files = []

    class Full(RecordWriter):
        def write(self, data):
            files.append(self)
            if len(files) > written:
                raise OSError(number, os.strerror(number))
            super().write(data)

        def close(self):
            super().close()
            if len(files) == 5 == written:
                raise OSError(number, os.strerror(number))

    monkeypatch.setattr(events_module, "RecordWriter", Full)
    with (
        pytest.raises(
            UserError, match=rf"{NO_SPACE[number]}.* while writing {tmp_path}: free some"
        ),
        MetricWriter(tmp_path) as writer,
    ):
        writer.scalars(1, {"loss": 0.5})
        writer.images(1, {"maps": np.zeros((2, 2, 3), np.uint8)})
    assert all(file._writer.closed for file in files), "nothing is left for the interpreter"


def test_overlay_is_dimmed_photograph_where_cold_and_color_where_hot():
    image = np.full((2, 3, 3), (40, 120, 200), np.uint8)
    heat = np.array([[0.0, 0.5, 1.0], [np.nan, -3.0, 7.0]], np.float32)
    shown = cam_overlay(image, heat)
    assert shown.shape == image.shape and shown.dtype == np.uint8
    cold, hot = shown[0, 0].astype(int), shown[0, 2].astype(int)
    assert (shown[1, 0] == cold).all() and (shown[1, 1] == cold).all()
    assert (shown[1, 2] == hot).all()
    assert hot[0] > hot[2] and cold[2] > cold[0], "warm color against bluish photograph"


def test_heat_ramp_gets_lighter_all_along():
    lightness = HEAT_COLORS.astype(np.float64) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > -0.51).all()  # up to rounding of the colors
    assert lightness[-1] - lightness[0] > 200
