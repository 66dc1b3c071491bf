"""The loader gives exactly the arrays that a batch's description names."""

import itertools
from typing import Any

import numpy as np
import pytest

from tests.data.test_loader import Pictures
from wsss_jax.data.augment import Augment
from wsss_jax.data.batch_spec import BatchSpec, LocalCrops, StrongView
from wsss_jax.data.loader import training_batches
from wsss_jax.data.mask_labels import GroundTruth
from wsss_jax.errors import UserError

CROP, CLASSES, SIZE = 24, 3, 4


def blocks(record, placement):
    """Labels of blocks of 8 pixels: the record's class everywhere."""
    return np.full((CROP // 8, CROP // 8), 1 + record["label"].argmax(), np.uint8)


@pytest.mark.parametrize(
    "masks, stride, strong, local",
    list(
        itertools.product(
            (False, True),
            (0, 8),
            (None, StrongView()),
            (None, LocalCrops(count=1, size=7), LocalCrops(count=3, size=16)),
        )
    ),
)
def test_a_batch_has_the_described_arrays(masks, stride, strong, local):
    spec = BatchSpec(segmentation=masks, affinity_stride=stride, strong=strong, local_crops=local)
    targets: dict[str, Any] = {"segmentation": GroundTruth(CLASSES), "affinity_label": blocks}
    source: Any = Pictures(8)
    batch = next(
        training_batches(
            source,
            batch_size=SIZE,
            augment=Augment(crop=CROP, long_side=(20, 40)),
            seed=3,
            steps=1,
            spec=spec,
            targets={key: targets[key] for key in spec.targets},
        )
    )
    expected = spec.shapes(SIZE, CROP, CLASSES)
    assert list(batch) == list(expected)
    for name, array in batch.items():
        assert (array.shape, array.dtype) == (expected[name].shape, expected[name].dtype), name


def test_without_further_wishes_a_batch_has_four_arrays():
    assert set(BatchSpec().shapes(2, 8, 3)) == {"image", "valid", "label", "index"}
    assert BatchSpec(segmentation=True, affinity_stride=4).targets == (
        "segmentation",
        "affinity_label",
    )


def test_the_last_blocks_of_a_crop_may_be_smaller():
    for crop, stride, blocks in ((24, 8, 3), (20, 8, 3), (30, 14, 3), (28, 14, 2)):
        shapes = BatchSpec(affinity_stride=stride).shapes(2, crop, 3)
        assert shapes["affinity_label"].shape == (2, blocks, blocks)


def test_a_crop_that_does_not_fit_is_refused():
    spec = BatchSpec(crop_multiple=32)
    assert spec.shapes(2, 64, 3) == BatchSpec().shapes(2, 64, 3)
    for crop, near in ((65, "64 or 96"), (63, "32 or 64"), (20, "32")):
        words = f"of a multiple of 32 pixels, found {crop}: set augment.crop to {near}$"
        with pytest.raises(UserError, match=words):
            spec.shapes(2, crop, 3)
