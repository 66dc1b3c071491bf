"""Padded shapes and batches: everything fits, few programs are needed, little is wasted."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsss_jax.inference.multi_scale import MultiScale, PaddedShapes
from wsss_jax.models.resnet import ResNet
from wsss_jax.ops.buckets import MOST_ROWS, Plan, Size, bucket_of, choose_buckets

SIDES = st.integers(1, 1000)
SIZE = st.tuples(SIDES, SIDES)
SIZES = st.lists(st.tuples(SIZE, SIZE), min_size=1, max_size=20)
"""Two scales of every image."""


def single(*sizes: Size) -> list[tuple[Size]]:
    return [(size,) for size in sizes]


@given(SIZES, st.integers(1, 6), st.sampled_from([0, 10_000]))
def test_every_size_fits_into_few_buckets(sizes, count, program_pixels):
    buckets = choose_buckets(sizes, count, 32, program_pixels)
    assert 1 <= len(buckets) <= count
    assert all(side % 32 == 0 for bucket in buckets for size in bucket for side in size)
    for one in sizes:
        bucket = bucket_of(one, buckets)
        assert len(bucket) == len(one)
        assert all(b[0] >= s[0] and b[1] >= s[1] for b, s in zip(bucket, one, strict=True))


@given(SIZES)
def test_order_does_not_matter(sizes):
    assert choose_buckets(sizes, 3, 32) == choose_buckets(sizes[::-1], 3, 32)


def test_similar_sizes_are_merged_first():
    sizes = single(*[(320, 240)] * 10, *[(320, 256)] * 10, (640, 480))
    assert choose_buckets(sizes, 2, 16) == (((320, 256),), ((640, 480),))


def test_a_size_that_many_images_have_weighs_more():
    sizes = single(*[(320, 240)] * 100, (320, 320), (320, 400))
    assert choose_buckets(sizes, 2, 16) == (((320, 240),), ((320, 400),))


def test_one_bucket_serves_all_scales_of_an_image():
    small, large = ((160, 128), (320, 240)), ((160, 112), (320, 256))
    assert choose_buckets([small, large], 1, 16) == (((160, 128), (320, 256)),)


def test_no_program_is_compiled_that_costs_more_than_it_saves():
    sizes = single((64, 64), (64, 96))
    extra = 64 * 32
    assert len(choose_buckets(sizes, 2, 32, extra - 1)) == 2
    assert len(choose_buckets(sizes, 2, 32, extra)) == 1
    many = single(*[(64, 64)] * 10, (64, 96))
    assert len(choose_buckets(many, 2, 32, 10 * extra - 1)) == 2


def test_thousands_of_sizes_are_planned_in_a_moment():
    rng = np.random.default_rng(0)
    sizes = single(*map(tuple, rng.integers(1, 4000, (5000, 2)).tolist()))
    buckets = choose_buckets(sizes, 4, 8)
    assert len(buckets) == 4 and all(bucket_of(one, buckets) for one in sizes)


def test_an_image_that_fits_nowhere_is_an_error():
    with pytest.raises(ValueError, match="expected a bucket for an image of"):
        bucket_of(((33, 10),), [((32, 32),)])


@given(SIZES, st.integers(1, 4), st.integers(1, 1 << 20), st.sampled_from([1, 4]))
def test_batches_hold_every_image_once_in_order(sizes, count, pixels, devices):
    plan = Plan(sizes, choose_buckets(sizes, count, 32), pixels, devices)
    found = plan.batches(range(len(sizes)))
    assert sorted(i for batch in found for i in batch.positions) == list(range(len(sizes)))
    assert [batch.bucket for batch in found] == sorted((b.bucket for b in found), reverse=True)
    for batch in found:
        assert all(bucket_of(sizes[i], plan.buckets) == batch.bucket for i in batch.positions)
        assert 1 <= len(batch.positions) <= batch.rows and batch.rows % devices == 0
        each = batch.rows // devices
        largest = max(height * width for height, width in batch.bucket)
        assert each == 1 or (each <= MOST_ROWS and each * largest <= pixels)
        assert list(batch.positions) == sorted(batch.positions)
    for bucket in plan.buckets:
        mine = [batch for batch in found if batch.bucket == bucket]
        assert len({batch.rows for batch in mine}) <= 1
        # All but the last are full, and the last lacks at most one row per device and batch.
        assert all(len(batch.positions) == batch.rows for batch in mine[:-1])
        empty = sum(batch.rows - len(batch.positions) for batch in mine)
        assert empty < max(len(mine), 1) * devices


def test_padding_counts_sides_and_empty_rows():
    plan = Plan(single(*[(10, 20)] * 5), (((16, 32),),), pixels=2 * 16 * 32)
    assert [len(batch.positions) for batch in plan.batches(range(5))] == [2, 2, 1]
    assert plan.padding() == pytest.approx(6 * 16 * 32 / (5 * 200) - 1)


def voc_sizes() -> list[Size]:
    """The sizes of 499 images of VOC 2012, of the lists train_aug and val."""
    table = np.loadtxt(Path(__file__).parent / "voc_sizes.csv", int, delimiter=",", skiprows=1)
    return [(height, width) for height, width, images in table.tolist() for _ in range(images)]


@pytest.mark.parametrize(
    "scales", [(0.5, 1.0, 1.5, 2.0), (0.75, 1.0, 1.25, 1.5), (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]
)
def test_less_than_a_tenth_of_vocs_pixels_is_padding(scales: tuple[float, ...]):
    sizes, how = voc_sizes(), MultiScale(scales=scales)
    assert len(sizes) == 499
    plan = how.plan(sizes, ResNet())
    assert len(plan.buckets) <= 4 and 0.02 < plan.padding() < 0.1
    # On many devices, each has a row.
    assert how.plan(sizes, ResNet(), 8).padding() < 0.13


def test_less_than_a_tenth_of_vocs_pixels_is_padding_in_random_walks():
    plan = PaddedShapes().padded(single(*voc_sizes()), ResNet())
    assert plan.padding() < 0.1
