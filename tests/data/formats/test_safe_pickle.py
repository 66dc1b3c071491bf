import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss_jax.data.formats.portable_pickle import Tensor, dump_numpy_pickle
from wsss_jax.data.formats.safe_pickle import load_numpy_pickle
from wsss_jax.errors import UserError

CONTENT = {
    "big endian": np.arange(6, dtype=">i2").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "empty": np.zeros((0, 3), np.float16),
    "text": np.array(["ab", "c"]),
    "bool": np.array(True),
    "nested": [np.float32(3.5), (1, None, {3}), b"", b"\x00\xff", {"deep": np.ones(2)}],
    "objects": np.array([[1, 2], None, {"a": np.int64(3)}], object),
    7: "ä",
}


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, np.ndarray) and expected.dtype != object:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, list | tuple | np.ndarray):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_gives_what_was_stored(tmp_path: Path, protocol: int):
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps(CONTENT, protocol=protocol))
    assert_same(load_numpy_pickle(path), CONTENT)


def test_a_saved_dictionary_is_unwrapped(tmp_path: Path):
    path = tmp_path / "labels.npy"
    np.save(path, {"2007_000032": np.eye(3, dtype=np.float32)[1]})  # pyright: ignore
    assert_same(load_numpy_pickle(path), {"2007_000032": np.array([0, 1, 0], np.float32)})


def test_a_plain_array_needs_no_pickle(tmp_path: Path):
    np.save(tmp_path / "array.npy", np.arange(4))
    assert_same(load_numpy_pickle(tmp_path / "array.npy"), np.arange(4))


def test_files_of_old_numpy_and_python_2_are_read(tmp_path: Path):
    # What Python 2 wrote: text as bytes, and the module's name before NumPy 2.
    stored = pickle.dumps({"id": np.arange(3, dtype=np.int32)}, protocol=2)
    stored = stored.replace(b"numpy._core.", b"numpy.core.")
    path = tmp_path / "labels.pkl"
    path.write_bytes(stored.replace(b"X\x02\x00\x00\x00id", b"U\x02id"))
    assert_same(load_numpy_pickle(path), {"id": np.arange(3, dtype=np.int32)})


def test_a_file_that_would_run_code_is_refused_by_name(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return print, ("executed",)

    for name, value in {"a.pkl": Evil(), "b.pkl": {"x": [Evil()]}}.items():
        (tmp_path / name).write_bytes(pickle.dumps(value))
        with pytest.raises(UserError, match=r"builtins\.print"):
            load_numpy_pickle(tmp_path / name)
    np.save(tmp_path / "c.npy", {"x": Evil()})  # pyright: ignore
    with pytest.raises(UserError, match=r"c\.npy.*builtins\.print"):
        load_numpy_pickle(tmp_path / "c.npy")


def test_other_classes_are_refused(tmp_path: Path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(collections.Counter("abc")))
    with pytest.raises(UserError, match=r"collections\.Counter"):
        load_numpy_pickle(tmp_path / "a.pkl")


def test_forged_object_flags_do_not_turn_bytes_into_pointers(tmp_path: Path):
    # An object array whose dtype claims to hold plain bytes: NumPy would take them as addresses.
    stored = pickle.dumps(np.array([None], object), protocol=2)
    forged = stored.replace(b"K?t", b"K\x00t").replace(b"]q\x0cNa", b"U\x08AAAAAAAA")
    (tmp_path / "a.pkl").write_bytes(forged)
    try:
        found = load_numpy_pickle(tmp_path / "a.pkl")
    except UserError:
        return
    assert isinstance(found, np.ndarray) and all(isinstance(x, str | None) for x in found)


def test_missing_and_foreign_files_are_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"labels\.npy, found none \(No such file"):
        load_numpy_pickle(tmp_path / "labels.npy")
    (tmp_path / "labels.npy").write_text("not a pickle")
    with pytest.raises(UserError, match=r"labels\.npy: expected a NumPy file, found 12 bytes"):
        load_numpy_pickle(tmp_path / "labels.npy")


def stored_bytes() -> bytes:
    return dump_numpy_pickle({"a": np.arange(3), "t": Tensor(np.ones((2, 2), np.float32))})


@pytest.mark.parametrize("length", range(0, len(stored_bytes()), 7))
def test_a_truncated_file_is_refused(tmp_path: Path, length: int):
    (tmp_path / "a.npy").write_bytes(stored_bytes()[:length])
    with pytest.raises(UserError):
        load_numpy_pickle(tmp_path / "a.npy")


@settings(deadline=None, max_examples=150)
@given(st.integers(0, len(stored_bytes()) - 1), st.integers(0, 255))
def test_an_altered_byte_is_read_or_refused(tmp_path_factory, position: int, value: int):
    data = bytearray(stored_bytes())
    data[position] = value
    path = tmp_path_factory.getbasetemp() / "altered.npy"
    path.write_bytes(data)
    try:
        load_numpy_pickle(path)
    except UserError as error:
        assert "altered.npy" in str(error)


def test_a_list_that_contains_itself_is_survived(tmp_path: Path):
    loop: list[object] = [1]
    loop.append(loop)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(loop))
    found = load_numpy_pickle(tmp_path / "a.pkl")
    assert isinstance(found, list) and found[1] is found


def test_written_names_are_those_of_every_numpy_version():
    assert b"numpy.core.multiarray" in stored_bytes()
    assert b"numpy._core" not in stored_bytes()
    assert b"wsss_jax" not in stored_bytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.uint8, bool])
def test_tensors_come_back_as_arrays(tmp_path: Path, dtype: type):
    array = (np.arange(24).reshape(2, 3, 4) % 3).astype(dtype)
    (tmp_path / "a.npy").write_bytes(dump_numpy_pickle([Tensor(array.T), Tensor(array[:0])]))
    assert_same(load_numpy_pickle(tmp_path / "a.npy"), [array.T, array[:0]])
