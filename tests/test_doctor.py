"""What the doctor says about machines that are well, and about those that are not."""

from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from wsss_jax import __version__, doctor


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    status = doctor.main(["doctor.py", *arguments])
    return status, capsys.readouterr().out.splitlines()


def problems(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("!")]


def test_this_machine_is_well(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_ODD", "1")
    status, lines = report(capsys)
    assert status == 0 and lines[-1] == "no problems" and not problems(lines)
    text = "\n".join(lines)
    assert f"wsss_jax {__version__}" in text and f"jax {jax.__version__}" in text
    assert "XLA_ODD=1" in text and "GiB memory" in text and "cores for this process" in text
    assert text.count("\n               cpu cpu") + text.count("devices      cpu cpu") == len(
        jax.devices()
    )


def test_data_and_weights_of_a_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    few = ("--config.data.train_images=3", "--config.data.val_images=2")
    where = f"--config.data.data_dir={tmp_path}"
    recipe = ("--config=cam_shapes", where, *few)
    status, lines = report(capsys, *recipe)
    assert status == 1  # there are fewer images than a batch has
    assert [line for line in problems(lines) if "expected a batch size of 1 to 3" in line]
    recipe = (*recipe, "--config.train.batch_size=2")
    status, lines = report(capsys, *recipe)
    assert status == 0
    assert any(line.endswith("train: 3 images, 6 classes") for line in lines)
    assert any(line.endswith("val: 2 images, 6 classes") for line in lines)
    status, lines = report(capsys, *recipe, "--config.init_weights=nowhere.npz")
    assert status == 1 and lines[-1].endswith("problem" if len(problems(lines)) == 1 else "s")
    assert any("nowhere.npz" in line for line in problems(lines))
    status, lines = report(capsys, "--config=seam_voc_light", f"--config.data.root={tmp_path}")
    assert status == 1
    assert len([line for line in problems(lines) if "expected a data set at" in line]) == 3


def test_a_value_needs_a_recipe(capsys: pytest.CaptureFixture[str]):
    assert doctor.main(["doctor.py", "--config.seed=1"]) == 2
    assert "--config.seed=1 needs --config=RECIPE" in capsys.readouterr().err


def test_broken_parts_are_problems(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def broken() -> None:
        raise RuntimeError("no driver\nhere")

    monkeypatch.setattr(jax, "devices", broken)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 30))
    monkeypatch.setenv("WSSS_JAX_DATA", "/proc/nowhere")
    status, lines = report(capsys)
    found = problems(lines)
    assert status == 1 and lines[-1] == f"{len(found)} problems"
    assert any("JAX finds none: no driver here" in line for line in found)
    assert any("1.0 GiB free: free some space" in line for line in found)
    assert any("cannot write to /proc/nowhere" in line for line in found)


@pytest.mark.slow
def test_a_short_run(capsys: pytest.CaptureFixture[str]):
    status, lines = report(capsys, "--check")
    assert status == 0
    assert any(
        line.endswith("all stages of a short run on generated images have ended") for line in lines
    )
