"""Learning rates follow the batch sizes of the command line."""

from typing import Any

import pytest

from wsss_jax.pipeline.config import read_recipe


def rates(recipe: str, *overrides: str) -> dict[str, float]:
    config: Any = read_recipe(recipe, overrides)
    stages = (name for name in config.stages if config[name].type == "train")
    return {name: config[name].optimizer.lr for name in stages}


def test_sgd_in_proportion(capsys: pytest.CaptureFixture[str]):
    same = {"train": 0.005, "train_affinity": 0.005, "train_segmentation": 0.005}
    assert rates("seam_voc_light") == same
    assert rates("seam_voc_light", "--config.train.batch_size=16") == same
    assert capsys.readouterr().err == ""
    few = rates("seam_voc_light", "--config.train.batch_size=4")
    assert few == same | {"train": 0.00125}
    assert (
        "note: train.optimizer.lr is 0.00125 in place of the recipe's 0.005, because it follows"
        " train.batch_size, which is 4 in place of 16" in capsys.readouterr().err
    )
    many = ("--config.train.batch_size=32", "--config.train_affinity.batch_size=8")
    expected = same | {"train": 0.01, "train_affinity": 0.0025}
    assert rates("seam_voc_light", *many) == expected


def test_a_rate_that_is_set_is_kept(capsys: pytest.CaptureFixture[str]):
    chosen = ("--config.train.batch_size=4", "--config.train.optimizer.lr=0.02")
    assert rates("seam_voc_light", *chosen)["train"] == 0.02
    assert capsys.readouterr().err == ""


def test_adamw_with_the_square_root():
    before = rates("cam_shapes")["train"]
    assert rates("cam_shapes", "--config.train.batch_size=4")["train"] == before / 2
