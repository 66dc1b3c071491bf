"""The network in what programs save around it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests.reference.torch_files import (
    state_dict,
    tensor,
    write_legacy,
    write_zip,
)
from tests.weights.checkpoints import assert_equal_bits
from wsss_jax.errors import UserError
from wsss_jax.weights.checkpoint import read_checkpoint

WEIGHT = {"conv.weight": np.ones((2, 3), np.float32), "norm.bias": np.zeros(2, np.float32)}


def prefixed(prefix: str, arrays: Mapping[str, np.ndarray] = WEIGHT) -> dict[str, np.ndarray]:
    return {prefix + name: array for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("value", "part", "notes"),
    [
        ({"model": state_dict(WEIGHT), "optimizer": {"state": {}}}, "", ("took model",)),
        ({"net": {"state_dict": state_dict(WEIGHT)}}, "", ("took net", "took state_dict")),
        ({"anything": state_dict(WEIGHT), "epoch": 3}, "", ("took anything",)),
        (state_dict(prefixed("module.")), "", ("removed the prefix module.",)),
        (
            {"teacher": state_dict(prefixed("module.backbone."))},
            "",
            ("took teacher", "removed the prefix module.", "removed the prefix backbone."),
        ),
        (
            {"student": state_dict(prefixed("a.")), "teacher": state_dict(WEIGHT)},
            "teacher",
            ("took teacher",),
        ),
        (state_dict({**prefixed("encoder_q."), **prefixed("encoder_k.")}), "encoder_q", None),
        (
            {"state_dict": state_dict({**prefixed("module.a."), **prefixed("module.b.")})},
            "state_dict.b",
            ("took state_dict", "removed the prefix module.", "removed the prefix b."),
        ),
        ({**state_dict(WEIGHT), "epoch": 3}, "", ("left out epoch",)),
    ],
)
def test_wrappers(tmp_path: Path, value: Any, part: str, notes: tuple[str, ...] | None):
    write_zip(tmp_path / "w", value)
    found = read_checkpoint(tmp_path / "w", part=part)
    assert_equal_bits(found.arrays, WEIGHT)
    assert notes is None or found.notes == notes


def test_heads_may_lack_the_prefix_of_a_backbone(tmp_path: Path):
    heads = {name: np.ones(2) for name in ("head.mlp.0.weight", "fc.bias", "decode_head.conv.bias")}
    safetensors.numpy.save_file({**prefixed("backbone."), **heads}, tmp_path / "w")
    assert_equal_bits(read_checkpoint(tmp_path / "w").arrays, {**WEIGHT, **heads})
    mixed = {**prefixed("backbone."), "neck.weight": np.ones(2)}
    safetensors.numpy.save_file(mixed, tmp_path / "w")
    assert_equal_bits(read_checkpoint(tmp_path / "w").arrays, mixed)
    same = {**prefixed("backbone.", heads), **heads}
    safetensors.numpy.save_file(same, tmp_path / "w")
    assert_equal_bits(read_checkpoint(tmp_path / "w").arrays, same)


@pytest.mark.parametrize(
    ("value", "part", "message"),
    [
        (
            {"student": state_dict(WEIGHT), "teacher": state_dict(WEIGHT)},
            "",
            "found student, teacher: choose one, as FILE,part=student or FILE,part=teacher$",
        ),
        ({"a": state_dict(WEIGHT), "b": state_dict(WEIGHT)}, "", "found a, b: choose one"),
        (
            {**state_dict(WEIGHT), "model": state_dict(WEIGHT)},
            "",
            "found model beside arrays: choose one, as FILE,part=model$",
        ),
        (state_dict(WEIGHT), "teacher", "expected a part teacher .* found conv, norm: choose"),
        ({"epoch": 3}, "", "expected arrays in the checkpoint, found none"),
        ([tensor(np.ones(3))], "", "expected arrays in the checkpoint, found none"),
        ({3: tensor(np.ones(3))}, "", "expected arrays with names, found 3"),
        ({"a\nb": tensor(np.ones(3))}, "", "expected arrays with names, found a b"),
    ],
)
def test_what_cannot_be_unwrapped(tmp_path: Path, value: Any, part: str, message: str):
    write_legacy(tmp_path / "w", value)
    with pytest.raises(UserError, match=message) as error:
        read_checkpoint(tmp_path / "w", part=part)
    assert "\n" not in str(error.value)
