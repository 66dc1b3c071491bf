"""What `benchmarks/gpu.py` makes of its measurements: limits, records, tables and targets."""

import json
import signal
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, gpu_recipe, gpu_tables
from benchmarks.gpu_plan import CPU_TESTS, TESTS, Measurement, filling_batch, plan
from tests.toys.waiting import LONG, until

REPOSITORY = Path(gpu.__file__).resolve().parent.parent
CHILD = """
    import json, subprocess, sys, time
    arguments = json.loads(sys.argv[1])
    print(json.dumps({"first": 1}), flush=True)
    if arguments["work"] == "hangs":
        hang = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
        subprocess.run([sys.executable, "-c", hang, arguments["begun"]])
    if arguments["work"] == "crashes":
        sys.exit("expected memory, found none")
    print("a message of a library")
    print(json.dumps({"second": arguments.get("batch")}), flush=True)
"""


class Started(subprocess.Popen):
    """A process that counts as started when what it hangs in has begun; then something is done."""

    begun = Path()
    then: Callable[[], object] = staticmethod(lambda: None)

    def wait(self, timeout: float | None = None) -> int:
        if timeout is not None and '"hangs"' in str(self.args):
            until(self.begun.exists, lambda: self.poll() is None)
            self.then()
        return super().wait(timeout)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file for results; the measurements of the side `whole` are those of the child above."""
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    monkeypatch.setitem(gpu.SCRIPTS, "whole", str(script))
    monkeypatch.setattr(Started, "begun", tmp_path / "begun")
    monkeypatch.setattr(gpu.subprocess, "Popen", Started)
    return tmp_path / "results.jsonl"


def measurement(work: str, limit: float = LONG) -> Measurement:
    return Measurement(work, 1, "whole", work, {"begun": str(Started.begun)}, limit)


def processes_with(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text(errors="replace")
        except OSError:
            continue
        found += [line] if text in line else []
    return found


def test_a_hang_and_a_crash_cost_only_themselves(out: Path):
    wanted = [measurement("hangs", 1), measurement("crashes"), measurement("works")]
    assert not gpu.run(wanted, out, 1000, "", "A")
    hung, crashed, worked = gpu.read(out)
    assert (hung["status"], hung["first"]) == ("cut", 1) and hung["seconds"] < LONG
    until(lambda: not processes_with(str(Started.begun)))
    assert (crashed["status"], crashed["said"]) == ("failed", ["expected memory, found none"])
    assert (worked["status"], worked["first"], worked["second"]) == ("finished", 1, None)
    printed = gpu_tables.tables_of(gpu.latest(gpu.read(out), "A"))
    assert "`crashes`: failed" in printed and "found none" in printed and "`hangs`: cut" in printed


def test_a_second_call_does_what_is_left_and_tries_failures_last(out: Path):
    wanted = [measurement("crashes"), measurement("works")]
    gpu.run(wanted, out, 1000, "", "A")
    again = [*wanted, Measurement("new", 1, "whole", "works", {"batch": 3}, LONG)]
    gpu.run(again, out, 1000, "", "A")
    assert [one["name"] for one in gpu.read(out)] == ["crashes", "works", "new", "crashes"]


def test_nothing_is_started_without_time(out: Path, capsys: pytest.CaptureFixture[str]):
    assert gpu.run([measurement("works")], out, gpu.ENOUGH - 1, "", "A")
    assert not out.exists() and "the rest waits" in capsys.readouterr().out


def test_an_interruption_leaves_what_was_found(out: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    monkeypatch.setattr(Started, "then", lambda _: signal.setitimer(signal.ITIMER_REAL, 0.1))
    try:
        with pytest.raises(SystemExit) as ended:
            gpu.run([measurement(work) for work in ("works", "hangs", "new")], out, 1000, "", "A")
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert ended.value.code == 130
    assert [one["status"] for one in gpu.read(out)] == ["finished", "cut"]


def test_a_line_that_was_cut_off_is_left_out_and_swallows_nothing(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    gpu.write(path, {"name": "a", "status": "finished"})
    with path.open("a") as file:
        file.write('{"name": "b", "sta')
    gpu.write(path, {"name": "c", "status": "failed"})
    assert [one["name"] for one in gpu.read(path)] == ["a", "c"]


def test_a_finished_record_counts_and_otherwise_the_last():
    records = [
        {"name": "a", "status": "finished", "n": 1},
        {"name": "a", "status": "failed", "n": 2},
        {"name": "b", "status": "failed", "n": 3},
        {"name": "b", "status": "cut", "n": 4},
    ]
    records = [{"on": "A", **one} for one in records]
    records.append({"on": "B", "name": "b", "status": "finished", "n": 5})
    assert {name: one["n"] for name, one in gpu.latest(records, "A").items()} == {"a": 1, "b": 4}
    assert {name: one["n"] for name, one in gpu.latest(records, "B").items()} == {"b": 5}


def step(name: str, seconds: float, batch: int = 8, **more: Any) -> dict[str, Any]:
    side, recipe, kind, *_ = name.split()
    key = "dtype" if side == "jax" else "mode"
    arguments = {"recipe": recipe, key: kind, "batch": batch, "stage": "train"}
    record = {"name": name, "side": side, "work": "step", "status": "finished", "seconds": 60.0}
    figures = {"step_seconds": seconds, "batch": batch, "crop": 448, "compile_seconds": 30.0}
    return record | {"arguments": arguments} | figures | more


def made_up() -> dict[str, dict[str, Any]]:
    """Records of a card with 800 TFLOP/s and 3,000 GB/s."""
    ceilings = {"tflops_bfloat16": 700.0, "tflops_tf32": 350.0, "gb_per_second": 3000.0}
    base = {"work": "ceilings", "arguments": {}, "status": "finished", "seconds": 9.0}
    records = [
        {**base, "name": "ceilings jax", "side": "jax", **ceilings},
        {**base, "name": "ceilings torch", "side": "torch", **ceilings, "tflops_bfloat16": 800.0},
        step(
            "jax seam_voc bfloat16 batch 8",
            0.05,
            tflop=16.0,
            program={"hbm_bytes": 120e9},
            data_sheet={"bf16_tflops": 1000.0},
            peak_gib=10.0,
            device_gib=70.0,
        ),
        step("torch seam_voc float32 batch 8", 0.2),
        step("torch seam_voc compiled batch 8", 0.0525),
    ]
    return {record["name"]: record for record in records}


def rows(text: str, title: str) -> list[dict[str, str]]:
    part = text.partition(f"### {title}")[2].partition("###")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    head, _, *body = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
    return [dict(zip(head, line, strict=True)) for line in body]


def test_rates_and_utilization():
    ours, eager, _ = rows(gpu_tables.tables_of(made_up()), "Training steps")
    assert (ours["images/s"], ours["TFLOP/s"]) == ("160", "320")
    assert (ours["MFU, measured"], ours["MFU, data sheet"]) == ("40 %", "32 %")
    # 16 TFLOP take 20 ms, and 120 GB take 40.
    assert (ours["roofline, ms"], ours["what binds"]) == ("40", "memory")
    # PyTorch's step does the same work.
    assert (eager["images/s"], eager["TFLOP/s"]) == ("40", "80")


def test_targets():
    printed = gpu_tables.tables_of(made_up())
    assert "ceiling: **miss**, 40 %; memory binds, at which 50 % are possible" in printed
    assert "`seam_voc`, batch 8: 3 × PyTorch, eager float32: **pass**, 4.00 ×" in printed
    assert "`seam_voc`, batch 8: 1.1 × PyTorch's best: **miss**, 1.05 ×" in printed
    assert "`cam_voc`, batch 16: 1.1 × PyTorch's best: not measured" in printed
    assert "`seam_voc` on VOC within one hour: not measured" in printed


def test_the_batch_that_fills_the_card():
    known = made_up()
    (one,) = (one for one in plan(False, Path("x")) if one.name.endswith("batch fill"))
    assert filling_batch(known, one) == 0  # one batch tells no slope
    more = step("jax seam_voc bfloat16 batch 32", 0.2, 32, peak_gib=28.0, device_gib=70.0)
    known[more["name"]] = more
    # 4 GiB and 0.75 GiB per image: 74 images take 59.5 of 70 GiB.
    assert filling_batch(known, one) == 72
    other = step("jax seam_voc float32 batch 64", 0.2, 64, peak_gib=28.0, device_gib=70.0)
    known[other["name"]] = other
    assert filling_batch(known, one) == 72


def test_a_recipe_is_the_sum_of_its_stages():
    known = made_up()
    measured = ["cam", "threshold", "eval_cam_train", "cam_val", "eval_cam_val", "crf"]
    measured += ["eval_crf_24", "walk", "masks_val"]
    known["stages"] = {
        "name": "stages",
        "work": "stages",
        "side": "jax",
        "status": "finished",
        "seconds": 1.0,
        "images": 10,
        "arguments": {"recipe": "seam_voc"},
        "stages": {name: [11.0, 1.0] for name in measured},  # 10 s of compiling, 10 images/s
    }
    for stage, batch in (("train_affinity", 8), ("train_segmentation", 5)):
        one = step(f"jax seam_voc bfloat16 {stage}", 0.1, batch)
        one["arguments"]["stage"] = stage
        known[one["name"]] = one
    assert gpu_recipe.total_seconds(gpu_recipe.stage_seconds(known)) is None
    known["input"] = {**known["stages"], "work": "training_input", "images_per_second": 100.0}
    found = {one.name: one.seconds for one in gpu_recipe.stage_seconds(known)}
    # Eight epochs of 1,322 batches of 8, which take 0.08 s to be read, whatever the step takes.
    assert found["train"] == pytest.approx(30 + 8 * 1322 * 0.08)
    assert found["train_affinity"] == pytest.approx(30 + 8 * 1322 * 0.1)
    # Batches of 10, measured with 5.
    assert found["train_segmentation"] == pytest.approx(30 + 20_000 * 0.2)
    assert found["cam"] == found["crf"] == pytest.approx(10 + 1058.2)
    assert found["eval_crf_4"] == found["eval_crf_24"] == pytest.approx(10 + 146.4)
    assert found["eval_walk"] is None  # masks, which nobody scored
    known["stages"]["stages"] |= {"eval_walk": [2.0, 1.0], "eval_masks_val": [2.0, 1.0]}
    total = gpu_recipe.total_seconds(gpu_recipe.stage_seconds(known))
    assert total is not None and total > 2 * 3600
    assert f"one hour: **miss**, {total / 60:.1f} min" in gpu_tables.tables_of(known)


@pytest.mark.parametrize("name", [*TESTS, *CPU_TESTS])
def test_the_tests_for_a_device_exist(name: str):
    path, _, function = name.partition("::")
    assert (REPOSITORY / path).exists()
    assert not function or f"def {function}(" in (REPOSITORY / path).read_text()


def test_names_are_unique_and_sizes_are_those_of_the_recipes():
    full, toy = plan(False, Path("x")), plan(True, Path("x"))
    assert len({one.name for one in full}) == len(full)
    assert [one.name for one in full] == [one.name for one in toy]
    json.dumps([dict(one.arguments) for one in full])
    first = next(one for one in full if one.work == "step")
    arguments = dict(recipe="seam_voc", dtype="bfloat16", batch=8, stage="train")
    assert arguments.items() <= first.arguments.items() and "crop" not in first.arguments
