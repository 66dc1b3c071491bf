"""Splits have each class in the same share."""

import numpy as np
import pytest

from wsss_jax.preparing.splits import stratified


@pytest.mark.parametrize("seed", range(3))
def test_each_class_has_its_share(seed: int):
    rng = np.random.default_rng(seed)
    labels = (rng.random((400, 6)) < (0.5, 0.3, 0.2, 0.1, 0.05, 0.02)).astype(np.uint8)
    chosen = stratified(labels, 0.2, seed)
    assert abs(int(chosen.sum()) - 80) <= 1
    wanted = 0.2 * labels.sum(axis=0)
    assert np.abs(labels[chosen].sum(axis=0) - wanted).max() <= 2
    assert np.array_equal(chosen, stratified(labels, 0.2, seed))
    assert not np.array_equal(chosen, stratified(labels, 0.2, seed + 1))


def test_rare_classes_stay_in_train():
    labels = np.eye(3, dtype=np.uint8)[[0, 1, 1, *[2] * 20]]
    chosen = stratified(labels, 0.2, 0)
    assert not chosen[:3].any() and 3 <= int(chosen.sum()) <= 5


def test_equal_files_stay_together_and_no_share_is_none():
    labels = np.ones((30, 1), np.uint8)
    groups = [n // 3 for n in range(30)]
    chosen = stratified(labels, 0.3, 1, groups)
    assert int(chosen.sum()) == 9
    assert all(len(set(chosen[n : n + 3].tolist())) == 1 for n in range(0, 30, 3))
    assert not stratified(labels, 0.0, 1).any()
    assert not stratified(np.zeros((5, 2), np.uint8), 0.0, 1).any()
