"""Backbones by name, and the one that the arrays of a file belong to."""

import re
from typing import Any

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.models.efficientnet_lite import EfficientNetLite
from wsss_jax.models.mobilenet_v2 import MobileNetV2
from wsss_jax.models.resnet import ResNet
from wsss_jax.models.tiny import Tiny
from wsss_jax.settings import kind_names, read, settings_of
from wsss_jax.weights.architectures import (
    architecture_name,
    backbone_shapes,
    guess,
    read_architecture,
)
from wsss_jax.weights.checkpoint import HEADS
from wsss_jax.weights.names import to_torch


def arrays_of(backbone: Backbone) -> dict[str, np.ndarray]:
    """Arrays of the backbone's names and shapes that take no memory."""
    flat: dict[str, Any] = flatten_dict(backbone_shapes(backbone), sep="/")
    light = {path: np.broadcast_to(np.float32(0), like.shape) for path, like in flat.items()}
    return to_torch(light, backbone)


def test_names_of_architectures_are_read_and_written():
    assert read_architecture("resnet,depth=101") == ResNet(depth=101)
    assert architecture_name(ResNet(depth=101)) == "resnet,depth=101"
    assert architecture_name(Tiny()) == "tiny"
    known = {"lite1": {"name": "efficientnet_lite", "variant": 1}}
    assert read_architecture("lite1", known) == EfficientNetLite(variant=1)
    assert read_architecture("lite1,variant=2", known) == EfficientNetLite(variant=2)
    # A backbone's own name comes before that of published weights.
    shadowed = {"mobilenet_v2": {"name": "mobilenet_v2", "form": "torchvision"}}
    assert read_architecture("mobilenet_v2", shadowed) == MobileNetV2()
    for text, message in (
        ("resnet,101", "give settings as NAME=VALUE"),
        ("resnet,dept=50", "did you mean depth"),
        ("resnett", "did you mean resnet"),
        ("resnet,depth=52", "50"),
    ):
        with pytest.raises(UserError, match=message) as error:
            read_architecture(text)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "tiny,width=24",
        pytest.param("efficientnet_lite,variant=1", marks=pytest.mark.slow),
        "vgg16,batch_norm=True,fc_features=0",
        "dinov2,patch=16,depth=2,pretrain_size=224,registers=4",
        pytest.param("convnext,size=small", marks=pytest.mark.slow),
        pytest.param("resnet,depth=101", marks=pytest.mark.slow),
        pytest.param("vit,patch=8,width=192", marks=pytest.mark.slow),
        pytest.param("dinov2,width=768,registers=4", marks=pytest.mark.slow),
    ],
)
def test_settings_follow_from_names_and_shapes(name: str):
    arrays = arrays_of(read_architecture(name))
    arrays["decode_head.conv_seg.weight"] = np.zeros((7, 5), np.float32)
    found = guess(arrays)
    assert found is not None and found.certain
    assert name in {architecture_name(one) for one in (found.backbone, *found.also)}
    assert found.heads == found.compared.unexpected == ("decode_head.conv_seg.weight",)
    assert not found.compared.missing and not found.foreign


def test_arrays_that_belong_to_no_head_leave_doubts():
    arrays = arrays_of(Tiny()) | {"layer_6.conv.weight": np.zeros((7, 5), np.float32)}
    found = guess(arrays)
    assert found is not None and found.backbone == Tiny() and not found.certain
    assert found.foreign == ("layer_6.conv.weight",) and found.share == 21 / 22


@pytest.mark.parametrize("name", kind_names(Backbone))
def test_no_variable_of_a_backbone_has_the_name_of_a_head(name: str):
    backbone = read(Backbone, dict(name=name))
    shapes = backbone_shapes(backbone)
    names = {*arrays_of(backbone), *flatten_dict(shapes, sep="/")}  # of other programs, and ours
    assert not [one for one in names if re.fullmatch(HEADS, one)]
    assert set(backbone.not_in_files) <= set(settings_of(type(backbone)))


def test_part_of_a_network_is_less_sure():
    arrays = arrays_of(Tiny())
    del arrays["layer_3.conv.weight"]
    found = guess(arrays)
    assert found is not None and not found.certain and found.backbone == Tiny()
    assert found.compared.missing == ("layer_3.conv.weight",)
    assert len(found.compared.values) == found.variables - 1


def test_the_same_name_twice():
    arrays = arrays_of(Tiny())
    arrays["module.stem.weight"] = arrays["stem.weight"]
    with pytest.raises(UserError, match=r"one array stem\.weight, found it with and without"):
        guess(arrays)


def test_unknown_networks():
    assert guess({"transformer.h.0.weight": np.zeros((3, 4), np.float32)}) is None
    assert guess({}) is None
