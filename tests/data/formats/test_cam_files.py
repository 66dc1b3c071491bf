import pickle
from pathlib import Path

import numpy as np
import pytest

from wsss_jax.data.formats.cam_files import (
    find_cams,
    read_cams,
    read_irn_cams,
    write_cams,
    write_irn_cams,
    write_seam_cams,
)
from wsss_jax.data.formats.crf_files import read_crf
from wsss_jax.data.formats.walk_files import read_walk
from wsss_jax.errors import UserError

KEYS = np.array([14, 4], np.int64)  # out of order on purpose
MAPS = np.random.default_rng(0).random((2, 6, 5)).astype(np.float32)
STRIDED = MAPS[:, ::4, ::4]


def write_all(folder: Path) -> list[Path]:
    write_cams(folder / "a.npz", KEYS, MAPS)
    write_seam_cams(folder / "seam.npy", KEYS, MAPS)
    write_irn_cams(folder / "irn.npy", KEYS, STRIDED, MAPS)
    return [folder / "a.npz", folder / "seam.npy", folder / "irn.npy"]


def test_every_format_gives_back_what_was_written(tmp_path: Path):
    for path in write_all(tmp_path):
        keys, cam = read_cams(path, num_classes=20)
        np.testing.assert_array_equal(keys, [4, 14])
        assert keys.dtype == np.int32
        np.testing.assert_allclose(cam, MAPS[::-1], atol=5e-4 if path.suffix == ".npz" else 0)


def test_our_file_holds_ascending_int32_keys_and_float16_maps(tmp_path: Path):
    write_cams(tmp_path / "a.npz", KEYS, MAPS)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["keys"].tolist() == [4, 14] and arrays["keys"].dtype == np.int32
        np.testing.assert_array_equal(arrays["cam"], MAPS[::-1].astype(np.float16))


def test_seam_file_is_the_published_dictionary(tmp_path: Path):
    write_seam_cams(tmp_path / "a.npy", KEYS, MAPS)
    published = np.load(tmp_path / "a.npy", allow_pickle=True).item()
    assert list(published) == [14, 4]
    np.testing.assert_array_equal(published[14], MAPS[0])
    assert published[14].dtype == np.float32


def test_irn_file_keeps_the_maps_at_stride_4(tmp_path: Path):
    write_irn_cams(tmp_path / "a.npy", KEYS, STRIDED, MAPS)
    keys, cam, high_res = read_irn_cams(tmp_path / "a.npy")
    np.testing.assert_array_equal(keys, [4, 14])
    np.testing.assert_array_equal(cam, STRIDED[::-1])
    np.testing.assert_array_equal(high_res, MAPS[::-1])


def test_a_file_of_the_published_program_with_its_tensors_is_read(golden: Path):
    # Written by PyTorch: keys and cam are tensors, high_res is cam repeated to 6×5.
    keys, cam, high_res = read_irn_cams(golden / "irn_cam.npy", num_classes=20)
    np.testing.assert_array_equal(keys, [4, 14])
    np.testing.assert_allclose(cam, np.arange(12).reshape(2, 3, 2) / 11, rtol=1e-6)
    repeated = cam.repeat(2, axis=1)[:, :, [0, 0, 0, 1, 1]]
    np.testing.assert_array_equal(high_res, repeated)
    np.testing.assert_array_equal(read_cams(golden / "irn_cam.npy").cam, high_res)


def test_an_image_without_classes(tmp_path: Path):
    write_cams(tmp_path / "a.npz", KEYS[:0], MAPS[:0])
    write_seam_cams(tmp_path / "a.npy", KEYS[:0], MAPS[:0])
    assert read_cams(tmp_path / "a.npz").cam.shape == (0, 6, 5)
    assert read_cams(tmp_path / "a.npy").cam.shape == (0, 0, 0)


def test_our_file_is_found_before_a_public_one(tmp_path: Path):
    assert find_cams(tmp_path, "a") is None
    write_seam_cams(tmp_path / "a.npy", KEYS, MAPS)
    assert find_cams(tmp_path, "a") == tmp_path / "a.npy"
    write_cams(tmp_path / "a.npz", KEYS, MAPS)
    assert find_cams(tmp_path, "a") == tmp_path / "a.npz"


@pytest.mark.parametrize("name", ["a.npz", "seam.npy", "irn.npy"])
def test_truncated_files_are_named(tmp_path: Path, name: str):
    write_all(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(UserError, match=name):
            read_cams(tmp_path / name)


def test_damage_inside_an_archive_is_noticed(tmp_path: Path):
    write_cams(tmp_path / "a.npz", KEYS, MAPS)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.npz"):
        read_cams(tmp_path / "a.npz")


def test_missing_and_foreign_files(tmp_path: Path):
    with pytest.raises(UserError, match=r"a\.npz, found no file"):
        read_cams(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", image=MAPS)
    with pytest.raises(UserError, match="keys"):
        read_cams(tmp_path / "a.npz")
    with open(tmp_path / "a.npz", "wb") as file:
        np.save(file, MAPS)
    with pytest.raises(UserError, match="truncated or foreign"):
        read_cams(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", MAPS)
    with pytest.raises(UserError, match=r"a\.npy: expected CAMs"):
        read_cams(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(pickle.dumps({"labels": 3}))
    with pytest.raises(UserError, match=r"b\.npy: expected CAMs"):
        read_cams(tmp_path / "b.npy")
    write_seam_cams(tmp_path / "c.npy", KEYS, MAPS)
    with pytest.raises(UserError, match=r"c\.npy: expected IRN's"):
        read_irn_cams(tmp_path / "c.npy")


@pytest.mark.parametrize(
    ("keys", "maps", "message"),
    [
        ([4, 20], MAPS, "classes 0 to 19"),
        ([-1, 3], MAPS, "classes 0 to 19"),
        ([3, 3], MAPS, "for 2 maps"),
        ([3], MAPS, "for 2 maps"),
        ([3, 4], MAPS[0], r"float32 \(6, 5\)"),
        ([3, 4], MAPS > 0, "bool"),
        ([3, 4], MAPS * np.float32(np.nan), "NaN"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, keys: list[int], maps: np.ndarray, message: str):
    np.savez(tmp_path / "a.npz", keys=np.array(keys), cam=maps)
    with pytest.raises(UserError, match=rf"a\.npz.*{message}"):
        read_cams(tmp_path / "a.npz", num_classes=20)


def test_maps_of_several_sizes_are_refused(tmp_path: Path):
    maps = {1: MAPS[0], 2: MAPS[0, :3]}
    (tmp_path / "a.npy").write_bytes(pickle.dumps(maps))
    with pytest.raises(UserError, match="one size"):
        read_cams(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", ["cams", "crf", "walk"])
def test_a_damaged_file_of_a_stage_says_how_to_make_it_again(tmp_path: Path, kind: str):
    path = tmp_path / "maps_train" / kind / "a.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK damaged")
    read = {"cams": read_cams, "crf": lambda path: read_crf(path, 4), "walk": read_walk}[kind]
    with pytest.raises(UserError, match="delete it and make it again"):
        read(path)
    (tmp_path / "maps_train" / "_START.json").write_text("{}")
    with pytest.raises(UserError, match="make it again with --only maps_train --force"):
        read(path)
