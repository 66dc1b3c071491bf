"""Padded shapes: everything fits, few are used, little is wasted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsss_jax.ops.buckets import batches, bucket_of, choose_buckets

SIDES = st.integers(1, 1000)
SIZES = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=20)


@given(SIZES, st.integers(1, 6))
def test_every_size_fits_into_few_buckets(sizes, count):
    buckets = choose_buckets(sizes, count, 32)
    assert 1 <= len(buckets) <= count
    assert all(h % 32 == 0 and w % 32 == 0 for h, w in buckets)
    for height, width in sizes:
        bucket = bucket_of((height, width), buckets)
        assert bucket[0] >= height and bucket[1] >= width


@given(SIZES)
def test_order_does_not_matter(sizes):
    assert choose_buckets(sizes, 3, 32) == choose_buckets(sizes[::-1], 3, 32)


def test_similar_sizes_are_merged_first():
    sizes = [(320, 240)] * 10 + [(320, 256)] * 10 + [(640, 480)]
    assert choose_buckets(sizes, 2, 32) == ((320, 256), (640, 480))


def test_an_image_that_fits_nowhere_is_an_error():
    with pytest.raises(ValueError, match="expected a bucket for an image of"):
        bucket_of((33, 10), [(32, 32)])


@given(SIZES, st.integers(1, 4), st.integers(1, 1 << 20))
def test_batches_hold_every_item_once_in_order(sizes, count, pixels):
    buckets = choose_buckets(sizes, count, 32)
    found = list(batches(zip(sizes, range(len(sizes)), strict=True), buckets, pixels))
    assert sorted(i for batch in found for i in batch.items) == list(range(len(sizes)))
    assert [batch.bucket for batch in found] == sorted(batch.bucket for batch in found)
    for batch in found:
        assert all(bucket_of(sizes[i], buckets) == batch.bucket for i in batch.items)
        assert 1 <= len(batch.items) <= batch.rows
        assert batch.rows == 1 or batch.rows * batch.bucket[0] * batch.bucket[1] <= pixels
        assert list(batch.items) == sorted(batch.items)
    for bucket in {batch.bucket for batch in found}:  # all but the last are full
        rows = [(len(b.items), b.rows) for b in found if b.bucket == bucket]
        assert all(length == full for length, full in rows[:-1])
