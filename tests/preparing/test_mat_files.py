"""MATLAB files, whole and damaged."""

import io
from typing import Any

import numpy as np
import pytest
import scipy.io

from wsss_jax.preparing.mat_files import read_field

PIXELS = np.random.default_rng(0).integers(0, 21, (7, 5)).astype(np.uint8)


def structure(compressed: bool, **fields: Any) -> bytes:
    edges = np.empty((20, 1), object)
    edges[:] = [[np.zeros((7, 5), np.uint8)]]
    content = {"Boundaries": edges, "Segmentation": PIXELS, "CategoriesPresent": [[3.0]]}
    file = io.BytesIO()
    saved = {"other": np.eye(3), "GTcls": content | fields, "GTinst": {"Segmentation": PIXELS + 1}}
    scipy.io.savemat(file, saved, do_compression=compressed)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (1, 4), (500, 375)])
def test_matrices_are_those_of_scipy(compressed: bool, shape: tuple[int, int]):
    pixels = np.random.default_rng(1).integers(0, 21, shape).astype(np.uint8)
    data = structure(compressed, Segmentation=pixels)
    by_scipy = scipy.io.loadmat(io.BytesIO(data))["GTcls"][0, 0]["Segmentation"]
    found = read_field(data, "GTcls", "Segmentation")
    assert found.dtype == by_scipy.dtype and np.array_equal(found, by_scipy)


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_files_are_refused_or_read(compressed: bool):
    data = structure(compressed)
    rng = np.random.default_rng(0)
    damaged = [data[:end] for end in range(0, len(data), 7)]
    for _ in range(400):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            changed[at] = rng.integers(256)
        damaged.append(bytes(changed))
    refused = 0
    for content in damaged:
        try:
            assert read_field(content, "GTcls", "Segmentation").ndim == 2
        except ValueError:
            refused += 1
    assert refused > 100


def test_other_fields_are_refused():
    odd = (PIXELS.astype(np.float64), PIXELS.astype(np.int16), np.zeros((2, 2, 2), np.uint8), "a")
    for value in odd:
        with pytest.raises(ValueError):
            read_field(structure(False, Segmentation=value), "GTcls", "Segmentation")
    for names in (("GTcls", "Mask"), ("GT", "Segmentation"), ("other", "Segmentation")):
        with pytest.raises(ValueError, match="no "):
            read_field(structure(True), *names)
