"""A disk that becomes full while a network is trained, whatever thread meets it first."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.toys.toy_training import same, tiny_cam, train
from wsss_jax.errors import UserError

STEPS = 6


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of `request.param` KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = f"size={request.param}k"
    if sys.platform != "linux":
        pytest.skip("tmpfs is Linux's")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# TensorStore reports arrays to a loop that was closed; commands leave these messages out.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("small_disk", [12, 24, 60, 200, 320], indirect=True)
def test_a_small_disk_is_one_line_and_the_run_goes_on(small_disk: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no space left on the device while writing") as caught:
        train(small_disk, STEPS, tiny_cam(), image_every=2)
    assert "\n" not in str(caught.value)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    state, _ = train(small_disk, STEPS, tiny_cam(), image_every=2)
    whole, _ = train(tmp_path / "whole", STEPS, tiny_cam(), image_every=2)
    assert same(state.params, whole.params)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("most", [1 << 10, 8 << 10, 64 << 10])
def test_a_limit_on_files_is_one_line_and_the_run_goes_on(most: int, tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(UserError, match=r"the limit on the size of files \(ulimit -f\)") as e:
            train(tmp_path / "limited", STEPS, tiny_cam(), image_every=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(e.value)
    state, _ = train(tmp_path / "limited", STEPS, tiny_cam(), image_every=2)
    whole, _ = train(tmp_path / "whole", STEPS, tiny_cam(), image_every=2)
    assert same(state.params, whole.params)
