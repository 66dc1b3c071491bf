"""Ids and sizes of many images."""

import sys

import numpy as np
import pytest

from wsss_jax.data.columns import Names, Positions, Sizes

NAMES = ["a", "2007_000032", "", "ä <b>", "x" * 300]


def test_names_are_those_of_a_list():
    _check_names(Names("".join(f"{name}\n" for name in NAMES).encode()))
    _check_names(Names.of(NAMES))
    many = [f"ä{index}" for index in range(50_000)]  # more than a block of bytes or of names
    assert list(Names.of(many)) == many and Names.of(many)[49_999] == many[-1]


def _check_names(names: Names):
    assert list(names) == NAMES and len(names) == 5
    assert [names[i] for i in range(-5, 5)] == [NAMES[i] for i in range(-5, 5)]
    assert names[1:-1:2] == NAMES[1:-1:2]
    assert "ä <b>" in names and "b" not in names
    for index in (5, -6):
        with pytest.raises(IndexError):
            names[index]
    assert not list(Names(b""))


def test_positions_are_those_of_a_list():
    names = ["b", "a", "ä", "b", "c", "a", "b", "x" * 40]
    positions = Positions(names)
    asked = ["c", "y" * 50, "ä", "aa", "x" * 40, ""]
    assert list(positions.find(name.encode() for name in asked)) == [4, 2, 7]
    assert list(positions.find([])) == []
    assert list(positions.repeated()) == [0, 1, 3]
    assert list(Positions(["d"]).repeated()) == []


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
