"""Result files are read by several threads at once."""

import gc
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from wsss_jax.data.formats.cam_files import read_cams
from wsss_jax.data.formats.crf_files import read_crf
from wsss_jax.data.formats.safe_pickle import load_numpy_pickle
from wsss_jax.data.formats.walk_files import read_walk

KEYS = np.array([1, 3], np.int32)
CAMS = np.full((2, 5, 4), 0.5, np.float16)


def _read_all(folder: Path) -> None:
    assert read_cams(folder / "cam.npz")[0].tolist() == [1, 3]
    assert read_crf(folder / "crf.npz", 4.0)[0].tolist() == [1, 3]
    assert read_walk(folder / "walk.npz").keys.tolist() == [1, 3]
    loaded = load_numpy_pickle(folder / "cam.npy")
    assert isinstance(loaded, dict) and loaded["keys"].tolist() == [1, 3]


@pytest.fixture
def busy_interpreter() -> Iterator[None]:
    """Threads take turns, and garbage is collected with a callback (JAX has one), all the time."""

    def yield_to_others(*_: object) -> None:
        time.sleep(0)

    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5)
    gc.callbacks.append(yield_to_others)
    yield
    gc.callbacks.remove(yield_to_others)
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("busy_interpreter")
def test_no_thread_disturbs_another(tmp_path: Path):
    np.savez(tmp_path / "cam.npz", keys=KEYS, cam=CAMS)
    q = np.full((3, 5, 4), 1 / 3, np.float16)
    np.savez(tmp_path / "crf.npz", keys=KEYS, q_4=q)
    np.savez(
        tmp_path / "walk.npz",
        keys=KEYS,
        scores=np.full((3, 3, 2), 0.3, np.float32),
        size=np.array([5, 4]),
        walked=np.array([3, 2]),
        stride=np.array(2),
    )
    content = np.array({"keys": KEYS, "cam": CAMS, "high_res": CAMS}, dtype=object)
    np.save(tmp_path / "cam.npy", content, allow_pickle=True)
    failures: list[BaseException] = []

    def read(depth: int) -> None:
        if depth:  # threads are at different depths, or their counts agree by chance
            return read(depth - 1)
        try:
            for _ in range(20):
                _read_all(tmp_path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(20 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
