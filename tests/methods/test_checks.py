"""A method or a backbone that breaks its contract is named before anything is trained."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import pytest

from tests.toys.light_methods import CLASSES, make, names
from wsss_jax.methods.base import Method
from wsss_jax.methods.cam import Cam
from wsss_jax.methods.checks import check_method
from wsss_jax.methods.segmentation import Segmentation
from wsss_jax.models import convnext
from wsss_jax.models.base import Backbone
from wsss_jax.models.tiny import Tiny
from wsss_jax.settings import kind_names, kind_of
from wsss_jax.types import ParamRule

OUTSIDE = ("tests.toys.small_vit", "examples.token_contrast")


def has_own_network(name: str) -> bool:
    """Whether a backbone is more than another one with other defaults."""
    return "__call__" in vars(kind_of(Backbone, name))


METHODS = [*names(), "examples.token_contrast"]
BACKBONES = [*filter(has_own_network, kind_names(Backbone)), *OUTSIDE]
# A third of them is quick: each method with a few backbones, each backbone with a few methods.
PAIRS = [
    pytest.param(name, backbone, marks=pytest.mark.slow) if (i + j) % 3 else (name, backbone)
    for i, name in enumerate(METHODS)
    for j, backbone in enumerate(BACKBONES)
]


@pytest.mark.parametrize(("name", "backbone"), PAIRS)
def test_every_method_keeps_its_contract_on_every_backbone(
    name: str, backbone: str, monkeypatch: pytest.MonkeyPatch
):
    # Its 18 equal blocks take long to trace; the next test has all of them.
    monkeypatch.setitem(convnext.BLOCKS, "tiny", (1, 1, 1, 1))
    check_method(make(name, {"name": backbone}))


@pytest.mark.parametrize(
    "backbone", [*itertools.filterfalse(has_own_network, kind_names(Backbone))]
)
def test_a_backbone_with_other_defaults_keeps_its_contract(backbone: str):
    check_method(make("cam", {"name": backbone}))


def changed(base: Any, change: Callable[[dict[str, Any]], Any], **fields: Any) -> Method:
    """A method whose prediction is `change` of that of `base`."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wrong(base):
        def predict(self, variables: Any, images: Any, valid: Any) -> Any:
            return change(super().predict(variables, images, valid))

    return Wrong(num_classes=CLASSES, backbone=Tiny(width=8), **fields)


def twice(maps: Any) -> Any:
    return maps.repeat(2, 1).repeat(2, 2)


@pytest.mark.parametrize(
    ("base", "change", "error", "message"),
    [
        (
            Cam,
            lambda found: {"cam": twice(found["cam"])},
            ValueError,
            r"Wrong\.predict: expected cam of shape \[1, 10, 13, 3\] for an image of 75 x 101"
            r" pixels at stride 8, found \[1, 20, 26, 3\]",
        ),
        (
            Cam,
            lambda found: {"cam": jnp.pad(found["cam"], [(0, 0)] * 3 + [(1, 0)])},
            ValueError,
            r"expected cam of shape \[1, 10, 13, 3\] .* found \[1, 10, 13, 4\]",
        ),
        (
            Cam,
            lambda found: {"cam": found["cam"][:, :9, :12]},  # rounded down
            ValueError,
            r"expected cam of shape \[1, 10, 13, 3\] .* found \[1, 9, 12, 3\]",
        ),
        (
            Cam,
            lambda found: {"cam": found["cam"].mean(-1)},
            ValueError,
            r"expected cam of shape \[1, 10, 13, 3\] .* found \[1, 10, 13\]",
        ),
        (
            Segmentation,
            lambda found: {"logits": found["logits"][..., 1:]},
            ValueError,
            r"expected logits of shape \[1, 10, 13, 4\] .* found \[1, 10, 13, 3\]",
        ),
        (
            Cam,
            lambda found: found["cam"],
            TypeError,
            r"Wrong\.predict: expected a dict with cam, found ShapeDtypeStruct",
        ),
        (
            Cam,
            lambda found: {"cams": found["cam"]},
            ValueError,
            r"Wrong\.predict: expected cam, found only cams",
        ),
        (
            Cam,
            lambda found: {"cam": [found["cam"]]},
            TypeError,
            r"Wrong\.predict: expected cam to be an array, found list",
        ),
    ],
)
def test_a_wrong_prediction_is_named(
    base: type[Method], change: Callable[..., Any], error: type[Exception], message: str
):
    check_method(changed(base, lambda found: found))
    with pytest.raises(error, match=message):
        check_method(changed(base, change))


def test_further_outputs_may_be_returned():
    check_method(changed(Cam, lambda found: {**found, "more": found["cam"].sum()}))


def test_wrong_strides_of_a_backbone_are_named():
    class Coarse(Tiny):
        @property
        def tap_strides(self) -> Mapping[str, int]:
            return {**super().tap_strides, "conv5": 16}

    class Missing(Tiny):
        @property
        def tap_strides(self) -> Mapping[str, int]:
            return {**super().tap_strides, "conv2": 4}

    message = r"Coarse\.__call__: expected conv5 of shape \[1, 5, 7, k\] .* found \[1, 10, 13, 64\]"
    with pytest.raises(ValueError, match=message):
        check_method(Cam(num_classes=CLASSES, backbone=Coarse()))
    with pytest.raises(ValueError, match="expected conv2, found only conv3, conv4"):
        check_method(Cam(num_classes=CLASSES, backbone=Missing()))


def test_a_parameter_of_the_backbone_without_a_rule_of_its_own_is_named():
    """The method's own rules match every parameter, and would train it at the head's rate."""

    class Partly(Tiny):
        def param_rules(self) -> tuple[ParamRule, ...]:
            return (ParamRule("^backbone/stem"), ParamRule("^backbone/layer_[0-4]/"))

    message = r"Partly\.param_rules: expected a rule .* found none for backbone/layer_5/\w+"
    with pytest.raises(ValueError, match=message):
        check_method(Cam(num_classes=CLASSES, backbone=Partly(width=8)))
