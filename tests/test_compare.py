"""Several recipes with several seeds: command line and runs."""

import io
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from wsss_jax import compare
from wsss_jax.comparison import runs
from wsss_jax.comparison.runs import read_recipes
from wsss_jax.files import read_json, write_json
from wsss_jax.pipeline import memory

TINY = (
    *("--config.data.train_images=8", "--config.data.val_images=4", "--config.data.size=64"),
    *("--config.train.batch_size=4", "--config.train.steps=2", "--config.train.augment.crop=32"),
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=x"], "--configs is missing"),
        (["--configs=cam_shapes"], "--workdir is missing"),
        (["--configs=cam_shaps", "--workdir=x"], "no config file cam_shaps; did you mean cam_shap"),
        (["--configs=cam_shapes,cam_shapes", "--workdir=x"], "found cam_shapes twice"),
        (["--configs=cam_shapes,cam_voc", "--workdir=x"], "recipes on the same data, found cam_s"),
        (["--config=cam_shapes", "--workdir=x"], "unknown flag --config; did you mean --configs?"),
        (["--confgis=cam_shapes"], "unknown flag --confgis; did you mean --configs?"),
        (
            ["--configs=cam_shapes", "--workdir=x", "--seeds=0"],
            "--seeds of at least 1, found 0",
        ),
        (
            ["--configs=cam_shapes", "--workdir=x", "--seeds=two"],
            "--seeds: expected a whole number",
        ),
        (
            ["--configs=cam_shapes", "--workdir=x", "--seed_list=0,0"],
            "expected every seed once, found one twice: 0,0",
        ),
        (["--configs=cam_shapes", "--workdir=x", "--seed_list=0,a"], "found '0,a'"),
        (["--configs=cam_shapes", "--seeds=1", "--seed_list=0", "--workdir=x"], "found both"),
        (
            ["--configs=cam_shapes", "--config.seed=1", "--workdir=x"],
            "expected seeds in --seeds or --seed_list, found --config.seed",
        ),
        (
            ["--configs=cam_shapes,seam_shapes", "--config.train.method.topk=0.3", "--workdir=x"],
            "recipe cam_shapes: the config has no value train.method.topk",
        ),
        (
            ["--configs=cam_shapes,seg_shapes", "--config.train.epcohs", "2", "--workdir=x"],
            "recipe cam_shapes: the config has no value train.epcohs; did you mean train.epochs?",
        ),
        (
            ["--configs=cam_shapes", "--workdir=x", "--config.train.epochs=two"],
            "to be a whole number, found 'two'",
        ),
        (["--configs=cam_shapes", "--table_only", "--workdir=x"], "finished runs in"),
        (["--configs=cam_shapes", "--table_only", "--dry_run", "--workdir=x"], "found both"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.chdir(tmp_path)
    assert compare.main(["compare.py", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())


def test_what_is_compared_and_what_that_needs():
    (seam,) = read_recipes(["seam_voc_light"], [])
    assert seam.scored == {"train": "eval_cam_train", "val": "eval_cam_val"}
    assert set(seam.needed) == {
        *("train", "cam", "threshold", "eval_cam_train", "cam_val", "eval_cam_val")
    }
    bound, pss = read_recipes(["seg_shapes", "pss_shapes"], ["--config.train.epochs=2"])
    assert bound.scored == {"train": "eval_train", "val": "eval_val"}
    assert bound.method == "Upper bound" and pss.method == "pss"
    assert pss.needed[:2] == ("train_rcm", "train") and "pseudo_labels" not in pss.needed
    config: Any = pss.config(seed=4)
    assert (config.seed, config.train.epochs, config.train_rcm.epochs) == (4, 2, 12)


def test_dry_run_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture):
    command = ["compare.py", "--configs=cam_shapes,seg_shapes", "--seed_list=0,4", "--dry_run"]
    assert compare.main([*command, f"--workdir={tmp_path / 'x'}", *TINY]) == 0
    out = capsys.readouterr().out
    for told in ("cam_shapes, seed 0  new", "seg_shapes, seed 4  new", "eval_cam_val"):
        assert told in out
    assert not list(tmp_path.iterdir())


def test_help_names_every_flag(capsys: pytest.CaptureFixture):
    assert compare.main(["compare.py", "--help"]) == 0
    out = capsys.readouterr().out
    for flag in ("--configs", "--seeds", "--seed_list", "--table_only", "--all_stages"):
        assert flag in out


def test_runs_go_on_past_a_failure_and_are_not_done_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WSSS_JAX_DATA", str(tmp_path / "data"))
    broken = tmp_path / "broken.py"
    broken.write_text(
        "from configs import cam_shapes\n"
        "def get_config():\n"
        "    c = cam_shapes.get_config()\n"
        "    c.train.init_weights = '/nowhere/weights.npz'\n"
        "    return c\n"
    )
    workdir = tmp_path / "compare"
    command = ["compare.py", f"--configs=cam_shapes,{broken}", "--seeds=1", f"--workdir={workdir}"]
    assert compare.main([*command, *TINY]) == 1
    captured = capsys.readouterr()
    assert "failed: broken, seed 0: " in captured.err and "/nowhere/weights.npz" in captured.err
    assert "=== 2/2 broken, seed 0" in captured.out and "to resume:" not in captured.out
    found = read_json(workdir / "compare.json")
    (row,) = found["rows"]
    assert (row["recipe"], row["seeds"], row["training_images"]) == ("cam_shapes", [0], 8)
    assert 0 < row["scores"]["val"]["miou"]["mean"] < 1
    assert row["scores"]["val"]["miou"]["std"] is None
    assert row["images_per_second"]["mean"] > 0 and row["peak_memory"] > 2**20
    assert found["missing"][0]["recipe"] == "broken"
    assert not (workdir / "cam_shapes" / "seed0" / "pseudo_labels").exists(), "not compared"
    names = {path.name for path in workdir.iterdir() if path.is_file()}
    assert names == {"compare.json", "compare.md", "compare.html", "compare.png"}

    # A second time nothing is trained, other settings are not taken for these, all else is named.
    done = (workdir / "cam_shapes" / "seed0" / "train" / "_DONE.json").read_bytes()
    begun: list[Any] = []
    monkeypatch.setattr(runs, "_child", lambda command: begun.append(command) or (0, ""))
    command[1] = "--configs=cam_shapes"
    assert compare.main([*command, *TINY]) == 0
    assert (workdir / "cam_shapes" / "seed0" / "train" / "_DONE.json").read_bytes() == done
    assert read_json(workdir / "compare.json")["missing"] == [] and not begun
    command[2] = "--seeds=2"
    assert compare.main([*command, *TINY, "--table_only"]) == 0
    assert "Missing: cam_shapes, seed 1: not started" in capsys.readouterr().out
    assert compare.main([*command, *TINY, "--config.train.steps=3", "--table_only"]) == 2
    assert compare.main([*command, *TINY, "--config.train.steps=3"]) == 1
    assert "train.steps was 2, is now 3" in capsys.readouterr().err


def test_a_killed_run_is_told_from_a_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (recipe,) = read_recipes(["cam_shapes"], [])
    (one,) = runs.plan([recipe], [0], tmp_path, False)
    monkeypatch.setattr(runs, "_child", lambda command: (-9, "step 3"))
    assert runs.run(one) == "ended by signal SIGKILL, as happens when memory runs out"
    monkeypatch.setattr(runs, "_child", lambda command: (0, "stopped"))
    assert runs.run(one) == "stopped before it was finished"


def test_an_interrupt_ends_the_run_and_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.2)\n"
        f"    pathlib.Path({str(tmp_path / 'saved')!r}).write_text('')\n"
        "    sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('begun', flush=True)\n"
        "time.sleep(600)\n"
    )

    class Output(io.StringIO):
        """The interrupt comes soon after the first line, while the next one is waited for."""

        def write(self, text: str) -> int:
            written = super().write(text)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            return written

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    monkeypatch.setattr(sys, "stdout", output := Output())
    try:
        with pytest.raises(KeyboardInterrupt):
            runs._child([sys.executable, "-c", program])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert output.getvalue() == "begun\n" and (tmp_path / "saved").exists()


def test_peak_memory_is_kept_over_attempts(tmp_path: Path):
    memory.record(tmp_path)
    first = memory.read(tmp_path)["process"]
    assert first > 2**20
    write_json(tmp_path / memory.FILE, {"process": 10 * first, "device": 5})
    memory.record(tmp_path)
    assert memory.read(tmp_path) == {"process": 10 * first, "device": 5}
    memory.record(tmp_path, anew=True)
    assert memory.read(tmp_path)["process"] < 10 * first
    assert memory.read(tmp_path / "none") == {}


# Table, page and picture, from made-up runs.
