"""The published numbers of images are those of the official lists."""

from pathlib import Path

import pytest

from wsss_jax.data.sets.voc2012 import Voc2012


@pytest.mark.parametrize("split", ["train", "train_aug", "val"])
def test_the_numbers_of_vocs_lists(split: str, shared: Path):
    ids = (shared / "data" / "lists" / f"{split}.txt").read_text().split()
    assert Voc2012.published[split] == (len(ids), 20)
