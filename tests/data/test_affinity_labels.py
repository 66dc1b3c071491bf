"""Labels for AffinityNet: what two CRFs agree on, in the place of the image."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from wsss_jax.data.affinity_labels import AffinityLabels
from wsss_jax.data.augment import Augment
from wsss_jax.data.block_means import block_means
from wsss_jax.data.formats.crf_files import write_crf
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError

WHOLE = Augment(crop=32, long_side=(), flip=0.0, random_position=False)
KEYS = np.array([1, 4])


def one_hot(winner: np.ndarray) -> np.ndarray:
    return np.stack([winner == plane for plane in range(3)]).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image of 24 × 32: six columns of blocks of which the CRFs say different things."""
    low, high = np.zeros((24, 32), int), np.zeros((24, 32), int)
    # Columns of blocks: sure background; unsure; sure class 1; class 4 by both.
    high[:, 8:16] = 1
    low[:, 16:24] = high[:, 16:24] = 1
    low[:, 24:] = high[:, 24:] = 2
    write_crf(tmp_path / "a.npz", KEYS, {4.0: one_hot(low), 24.0: one_hot(high)})
    return tmp_path


def place(augment: Augment, seed: int = 0):
    return augment.place((24, 32), np.random.default_rng(seed))


def record(size: tuple[int, int]) -> Record:
    label = np.zeros(5, np.float32)
    return Record(id="a", image=b"", size=size, label=label, segmentation=None)


def label(folder: Path, augment: Augment = WHOLE, seed: int = 0, **fields) -> np.ndarray:
    labels = AffinityLabels(**{"folder": folder, "alphas": (4.0, 24.0), "num_classes": 5, **fields})
    return labels(record((24, 32)), place(augment, seed))


def test_agreement_is_known_the_rest_is_not(folder: Path):
    expected = np.array([[0, 255, 2, 5]] * 3 + [[255] * 4], np.uint8)  # below the image: unknown
    found = label(folder)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8


def test_labels_follow_the_image(folder: Path):
    flipped = dataclasses.replace(WHOLE, flip=1.0)
    np.testing.assert_array_equal(label(folder, flipped), label(folder)[:, ::-1])
    large = dataclasses.replace(WHOLE, crop=64, long_side=(64, 64))
    found = label(folder, large)
    np.testing.assert_array_equal(found[:6], label(folder)[:3].repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(label(folder, stride=16), [[0, 2], [0, 2]])
    # A small window shows the image's own labels; its mask in pixels is the witness.
    small = dataclasses.replace(WHOLE, crop=16, flip=0.5, random_position=True)
    columns = np.arange(32, dtype=np.uint8)[None].repeat(24, 0)
    for seed in range(10):
        seen = place(small, seed).mask(columns)
        found = label(folder, small, seed)
        for block, value in enumerate(found[0]):
            inside = {int(c) // 8 for c in seen[0, 8 * block : 8 * block + 8]}
            if len(inside) == 1:
                assert value == [0, 255, 2, 5][inside.pop()]


def test_background_by_the_large_alpha_wins(tmp_path: Path):
    low, high = np.full((24, 32), 1), np.zeros((24, 32), int)
    write_crf(tmp_path / "a.npz", KEYS, {4.0: one_hot(low), 24.0: one_hot(high)})
    np.testing.assert_array_equal(label(tmp_path)[:3], np.zeros((3, 4)))


def test_an_image_without_classes_is_background(tmp_path: Path):
    planes = np.ones((1, 24, 32), np.float32)
    write_crf(tmp_path / "a.npz", KEYS[:0], {4.0: planes, 24.0: planes})
    np.testing.assert_array_equal(label(tmp_path)[:3], np.zeros((3, 4)))


def test_probabilities_are_averaged_before_the_choice(tmp_path: Path):
    # Background has most pixels of every block, but class 1 has the greater mean.
    q = np.zeros((3, 24, 32), np.float32)
    q[0], q[1] = 0.55, 0.45
    q[0, :, ::4], q[1, :, ::4] = 0.0, 1.0
    write_crf(tmp_path / "a.npz", KEYS, {4.0: q, 24.0: q})
    np.testing.assert_array_equal(label(tmp_path)[:3], np.full((3, 4), 2))


def test_block_means():
    planes = np.arange(32, dtype=np.float32).reshape(1, 4, 8)
    expected = [[[planes[0, i : i + 2, j : j + 2].mean() for j in (0, 2, 4, 6)] for i in (0, 2)]]
    np.testing.assert_allclose(block_means(planes, 2), expected)
    # The last row and the last two columns are smaller blocks of their own.
    part = block_means(planes, 3)
    expected = [[planes[0, i : i + 3, j : j + 3].mean() for j in (0, 3, 6)] for i in (0, 3)]
    np.testing.assert_allclose(part, [expected])


def test_a_crop_need_not_consist_of_whole_blocks(folder: Path):
    found = label(folder, stride=14)  # 14, 14 and 4 columns; 14 and 10 rows of the image
    unsure_and_background = [0, 2, 5]
    np.testing.assert_array_equal(found, [unsure_and_background] * 2 + [[255] * 3])


def test_mistakes_are_the_users(folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"two affinity_alphas, .* found \(24.0, 4.0\)"):
        label(folder, alphas=(24.0, 4.0))
    with pytest.raises(UserError, match="alpha 8, found alpha 4, 24"):
        label(folder, alphas=(4.0, 8.0))
    with pytest.raises(UserError, match="expected a CRF result at"):
        label(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"expected 30×24 pixels like the image, found 32×24"):
        labels = AffinityLabels(folder, (4.0, 24.0), 5)
        labels(record((24, 30)), WHOLE.place((24, 30), np.random.default_rng(0)))
