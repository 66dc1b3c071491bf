"""CAM files from one format to another and back."""

from pathlib import Path

import numpy as np
import pytest

from wsss_jax import convert_cams
from wsss_jax.data.formats.cam_files import read_cams, read_irn_cams, write_cams


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number, size in enumerate(((9, 14), (8, 8))):
        cam = rng.random((2, *size)).astype(np.float16).astype(np.float32)
        write_cams(tmp_path / "stage" / "cams" / f"image{number}.npz", np.array([3, 7]), cam)
    return tmp_path


@pytest.mark.parametrize("form", ["seam", "irn"])
def test_there_and_back(folder: Path, form: str, capsys: pytest.CaptureFixture[str]):
    out, back = folder / form, folder / "back"
    command = ["convert_cams.py", "--cams", str(folder / "stage"), "--out", str(out)]
    command += ["--format", form]
    assert convert_cams.main(command) == 0
    assert "2 files" in capsys.readouterr().out
    command = ["convert_cams.py", "--cams", str(out), "--out", str(back), "--format", "npz"]
    assert convert_cams.main(command) == 0
    for number in range(2):
        first = read_cams(folder / "stage" / "cams" / f"image{number}.npz")
        last = read_cams(back / f"image{number}.npz")
        assert first.keys.tolist() == last.keys.tolist() == [3, 7]
        np.testing.assert_array_equal(first.cam, last.cam)


def test_irns_quarter_maps(folder: Path):
    out = folder / "irn"
    command = ["convert_cams.py", "--cams", str(folder / "stage"), "--out", str(out)]
    assert convert_cams.main([*command, "--format", "irn"]) == 0
    found = read_irn_cams(out / "image0.npy")
    assert found.cam.shape == (2, 3, 4) and found.high_res.shape == (2, 9, 14)
    # 8 pixels to 2: the centres lie between pixels 1 and 2, and 5 and 6.
    square = read_irn_cams(out / "image1.npy")
    full = square.high_res
    expected = (full[:, 1:2, 1:2] + full[:, 1:2, 2:3] + full[:, 2:3, 1:2] + full[:, 2:3, 2:3]) / 4
    np.testing.assert_allclose(square.cam[:, :1, :1], expected, rtol=1e-6)


def test_mistakes_are_told(folder: Path, capsys: pytest.CaptureFixture[str]):
    cams = folder / "stage" / "cams"
    for wrong, words in (
        (["--cams", str(folder), "--out", str(folder / "x")], "found none"),
        (["--cams", str(cams), "--out", str(cams)], "another folder"),
    ):
        assert convert_cams.main(["convert_cams.py", *wrong, "--format", "seam"]) == 2
        assert words in capsys.readouterr().err
    (cams / "image1.npz").write_bytes(b"cut")
    command = ["convert_cams.py", "--cams", str(cams), "--out", str(folder / "x")]
    command += ["--format", "seam"]
    assert convert_cams.main(command) == 2
    assert "image1.npz" in capsys.readouterr().err
