"""Progress where there is no terminal: rate and time left."""

import io
import re
import sys

import pytest

from wsss_jax import progress
from wsss_jax.progress import Progress, about


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
        bar.update(15)
    assert capsys.readouterr().err.splitlines() == [
        "training: 12/50 steps, 0.1 steps/s, about 8 min left",
        "training: 35/50 steps, 1.0 steps/s, about 20 s left",
        "training: 50/50 steps, 1.6 steps/s",
    ]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.2, "less than 10 s"),
        (9.9, "less than 10 s"),
        (10, "about 10 s"),
        (17.0, "about 20 s"),
        (54, "about 50 s"),
        (56, "about 1 min"),
        (100, "about 2 min"),
        (571, "about 10 min"),
        (23 * 60 + 41, "about 25 min"),
        (59 * 60, "about 1 h"),
        (4000, "about 1 h"),
        (5000, "about 1.5 h"),
        (9.8 * 3600, "about 10 h"),
        (30 * 3600, "about 30 h"),
        (47.8 * 3600, "about 2 days"),
        (1e7, "about 116 days"),
    ],
)
def test_expected_times_are_told_as_precisely_as_they_are_known(seconds: int | float, told: str):
    assert about(seconds) == told


def test_the_bar_of_a_terminal_tells_the_same(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    clock = Clock()
    with Progress(50, "training", unit="steps") as bar:
        assert bar._bar is not None
        bar._bar._time = lambda: clock.now  # type: ignore
        bar._bar.start_t = bar._bar.last_print_t = clock.now
        clock.now += 100
        bar.update(10, loss=1.0)
        told = terminal.getvalue()
        clock.now += 400
        bar.update(40)
    drawn = told.split("\r")
    assert "left" not in drawn[1], "nothing is known before the first step"
    shown = r"training: +20%\|.*\| 10/50 \[01:40, about 7 min left, 10.00s/steps, loss=1\]"
    assert re.search(shown, drawn[-1])
    end = terminal.getvalue()[len(told) :]
    assert "50/50 [08:20, " in end and "left" not in end


def test_last_unit_is_told_at_once_and_a_quiet_one_not_at_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(progress, "time", Clock())
    for enabled in (True, False):
        with Progress(2, "maps", enabled=enabled) as bar:
            bar.update(2, images=2.0)
        expected = "maps: 2/2 images, images 2\n" if enabled else ""
        assert capsys.readouterr().err == expected
