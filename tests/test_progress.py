"""Progress where there is no terminal: rate and time left."""

import pytest

from wsss_jax import progress
from wsss_jax.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_rate_leaves_out_what_the_first_unit_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with Progress(50, "training", unit="steps", initial=10) as bar:
        clock.now += 60  # compiling
        bar.update(0, loss=1.0)
        bar.update(1)
        assert capsys.readouterr().err.splitlines() == [
            "training: 10/50 steps, loss 1",
            # The next line comes no sooner than ten seconds after it.
        ]
        clock.now += 12
        bar.update(1)
        bar.update(5)
        clock.now += 12
        bar.update(18)
    assert capsys.readouterr().err.splitlines() == [
        "training: 12/50 steps, 0.1 steps/s, 7:36 left",
        "training: 35/50 steps, 1.0 steps/s, 0:15 left",
    ]


def test_last_unit_is_told_at_once_and_a_quiet_one_not_at_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(progress, "time", Clock())
    for enabled in (True, False):
        with Progress(2, "maps", enabled=enabled) as bar:
            bar.update(2, images=2.0)
        expected = "maps: 2/2 images, images 2\n" if enabled else ""
        assert capsys.readouterr().err == expected
