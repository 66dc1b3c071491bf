"""What commands tell while they work, for people and as events for programs."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.toys.fake_recipe import write_recipe
from wsss_jax import console
from wsss_jax import main as program
from wsss_jax.errors import UserError
from wsss_jax.progress import Progress


@pytest.fixture(autouse=True)
def restored():
    yield
    console.write_events_to(None)
    console.quiet(False)


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_and_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    console.event("nowhere")
    log = tmp_path / "logs/events.jsonl"
    console.write_events_to(log)
    console.say("one", stage="train")
    console.note("two")
    console.quiet(True)
    console.say("três")
    console.note("four")
    console.event("odd", value=Path("x"))
    captured = capsys.readouterr()
    assert captured.out == "one\n" and captured.err == "note: two\n"
    found = events(log)
    assert [one["event"] for one in found] == ["message", "note", "message", "note", "odd"]
    assert [one.get("text") for one in found] == ["one", "two", "três", "four", None]
    assert found[0]["stage"] == "train" and found[4]["value"] == "x"
    assert all(one["time"].endswith("+00:00") for one in found)
    console.write_events_to(log)  # is appended to
    console.say("five")
    assert events(log)[-1]["text"] == "five" and len(events(log)) == 6


def test_progress_is_an_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    console.write_events_to(tmp_path / "events")
    console.quiet(True)
    for enabled in (True, False):
        with Progress(4, "maps", enabled=enabled) as bar:
            bar.update(1)
            bar.update(3, loss=0.5)
    assert capsys.readouterr().err == ""
    (last,) = events(tmp_path / "events")
    assert (last["label"], last["done"], last["total"], last["unit"]) == ("maps", 4, 4, "images")
    assert last["seconds_left"] == 0 and last["figures"] == {"loss": 0.5}


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="cannot write --json_logs"):
        console.write_events_to(tmp_path)


def test_a_run_tells_programs_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(program.process, "compilation_cache", lambda: None)
    command = ["main.py", f"--config={write_recipe(tmp_path)}", f"--json_logs={tmp_path / 'log'}"]
    first = [*command, f"--workdir={tmp_path / 'w'}"]
    assert program.main([*first, "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""
    found = events(tmp_path / "log")
    kinds = [one["event"] for one in found if one["event"] != "message"]
    assert kinds == ["run_started", "stage_started", "stage_finished", "run_finished"]
    started, finished = found[2], next(one for one in found if one["event"] == "stage_finished")
    assert started["stage"] == "work" and started["number"] == started["stages"] == 1
    assert finished["metrics"] == {"miou": 0.5} and finished["seconds"] > 0
    texts = [one["text"] for one in found if one["event"] == "message"]
    assert texts[0] == "[1/1] work (fake_main.stage): starts"
    assert texts[1].startswith("[work] value 3 scales")
    # The second run with these settings knows how long they took.
    assert program.main([*command, f"--workdir={tmp_path / 'v'}"]) == 0
    assert re.search(r"starts, (less than 10 s|about \d+ (s|min))\n", capsys.readouterr().out)
    # A finished stage is skipped, and a mistake is an event, too.
    assert program.main(first) == 0
    assert events(tmp_path / "log")[-3]["event"] == "stage_skipped"
    assert program.main([*first, "--config.work.value=5"]) == 2
    assert events(tmp_path / "log")[-1]["event"] == "error"
    assert "value was 3" in events(tmp_path / "log")[-1]["text"]
