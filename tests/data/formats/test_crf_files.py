"""Files of CRF results: what was written comes back, damaged ones are named."""

from pathlib import Path

import numpy as np
import pytest

from wsss_jax.data.formats.crf_files import read_crf, write_crf
from wsss_jax.errors import UserError


def test_a_file_gives_back_what_was_written(tmp_path: Path):
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.ones(3), (8, 6)).transpose(2, 0, 1).astype(np.float32)
    write_crf(tmp_path / "a.npz", np.array([3, 7]), {4.0: q, 0.5: q[:, ::-1]})
    keys, read = read_crf(tmp_path / "a.npz", 4.0)
    assert keys.dtype == np.int32 and keys.tolist() == [3, 7]
    np.testing.assert_allclose(read, q, atol=1 / 4096 + 1e-6)
    np.testing.assert_array_equal(read_crf(tmp_path / "a.npz", 0.5)[1], read[:, ::-1])
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"keys", "q_4", "q_0.5"}


def test_damaged_and_foreign_files_are_named(tmp_path: Path):
    path = tmp_path / "a.npz"
    with pytest.raises(UserError, match=r"a\.npz, found no file"):
        read_crf(path, 4)
    q = np.full((2, 8, 6), 0.5, np.float32)
    write_crf(path, np.array([3]), {4.0: q})
    with pytest.raises(UserError, match="classes 0 to 2"):
        read_crf(path, 4, num_classes=3)
    whole = path.read_bytes()
    for length in range(0, len(whole), 41):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"a\.npz"):
            read_crf(path, 4)
    for arrays in (
        {"cam": q},
        {"keys": np.array([3], np.int32), "q_4": q[:1].astype(np.float16)},
        {"keys": np.array([3], np.int32), "q_4": q},
        {"keys": np.array([3], np.int32), "q_4": (q * 3).astype(np.float16)},
        {"keys": np.array([3], np.int32), "q_4": (q * np.nan).astype(np.float16)},
    ):
        np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
        with pytest.raises(UserError, match=r"a\.npz"):
            read_crf(path, 4)
