"""Ids and sizes of many images."""

import sys

import numpy as np
import pytest

from wsss_jax.data.columns import Names, Sizes

NAMES = ["a", "2007_000032", "", "ä <b>", "x" * 300]


def test_names_are_those_of_a_list():
    names = Names("".join(f"{name}\n" for name in NAMES).encode())
    assert list(names) == NAMES and len(names) == 5
    assert [names[i] for i in range(-5, 5)] == [NAMES[i] for i in range(-5, 5)]
    assert names[1:-1:2] == NAMES[1:-1:2]
    assert "ä <b>" in names and "b" not in names
    for index in (5, -6):
        with pytest.raises(IndexError):
            names[index]
    assert not list(Names(b""))


def test_names_and_sizes_are_small():
    lines = b"".join(b"image_%07d\n" % index for index in range(10_000))
    names = Names(lines)
    assert sys.getsizeof(lines) + names._ends.nbytes < 20 * 10_000
    assert names[9_999] == "image_0009999"


def test_sizes_are_pairs_of_numbers():
    pairs = [(index, 500 - index % 3) for index in range(10_000)]
    sizes = Sizes(np.array(pairs, np.int32))
    assert list(sizes) == pairs and sizes[7] == pairs[7] and sizes[3:9] == pairs[3:9]
    assert type(sizes[0][0]) is int and sizes[-1] == pairs[-1]
