"""EfficientNet-Lite: its size, names, strides, dilation and padding."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.models.test_every_backbone import few_groups
from tests.models.test_mobilenet_v2 import shapes
from tests.reference.golden_weights import drawn_variables
from tests.toys.compiler import QUICK
from wsss_jax.models import efficientnet_lite
from wsss_jax.models.efficientnet_lite import EfficientNetLite

Variant = Literal[0, 1, 2]
# Published are 4.7, 5.4 and 6.1 million; the files of the authors have these numbers.
PARAMETERS = {0: 4_652_008, 1: 5_416_680, 2: 6_092_072}
STATISTICS = {0: 42_016, 1: 53_664, 2: 58_096}
CLASSIFIER = 1280 * 1000 + 1000


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_parameters_are_those_of_the_files(variant: Variant):
    _, variables = shapes(EfficientNetLite(variant=variant))
    params: dict[str, Any] = traverse_util.flatten_dict(variables["params"], sep="/")
    assert sum(p.size for p in params.values()) == PARAMETERS[variant] - CLASSIFIER
    statistics = jax.tree.leaves(variables["batch_stats"])
    assert sum(v.size for v in statistics) == STATISTICS[variant]
    assert params["features_4/conv_1_0/kernel"].shape[:2] == (5 if variant == 0 else 3,) * 2


def test_names_are_those_of_the_files():
    model, names = EfficientNetLite(), {}
    _, variables = shapes(model)
    for path in traverse_util.flatten_dict(variables):
        names["/".join(path)] = model.import_name(path)
    assert len(set(names.values())) == len(names) == 5 * 49
    expected = {
        "params/features_0_0/kernel": "_conv_stem.weight",
        "batch_stats/features_0_1/mean": "_bn0.running_mean",
        "params/features_1/conv_0_0/kernel": "_blocks.0._depthwise_conv.weight",
        "params/features_1/conv_0_1/scale": "_blocks.0._bn1.weight",
        "params/features_1/conv_1/kernel": "_blocks.0._project_conv.weight",
        "batch_stats/features_1/conv_2/var": "_blocks.0._bn2.running_var",
        "params/features_16/conv_0_0/kernel": "_blocks.15._expand_conv.weight",
        "params/features_16/conv_0_1/bias": "_blocks.15._bn0.bias",
        "params/features_16/conv_1_0/kernel": "_blocks.15._depthwise_conv.weight",
        "params/features_16/conv_1_1/scale": "_blocks.15._bn1.weight",
        "params/features_16/conv_2/kernel": "_blocks.15._project_conv.weight",
        "params/features_16/conv_3/bias": "_blocks.15._bn2.bias",
        "params/features_17_0/kernel": "_conv_head.weight",
        "params/features_17_1/bias": "_bn1.bias",
    }
    assert {path: names[path] for path in expected} == expected


def test_files_of_timm_have_other_names():
    names = {
        "conv_stem.weight": "_conv_stem.weight",
        "bn1.running_mean": "_bn0.running_mean",
        "blocks.0.0.conv_dw.weight": "_blocks.0._depthwise_conv.weight",
        "blocks.0.0.bn1.bias": "_blocks.0._bn1.bias",
        "blocks.0.0.conv_pw.weight": "_blocks.0._project_conv.weight",
        "blocks.0.0.bn2.weight": "_blocks.0._bn2.weight",
        "blocks.1.0.conv_pw.weight": "_blocks.1._expand_conv.weight",
        "blocks.1.0.bn1.weight": "_blocks.1._bn0.weight",
        "blocks.2.1.conv_dw.weight": "_blocks.4._depthwise_conv.weight",
        "blocks.2.1.bn2.running_var": "_blocks.4._bn1.running_var",
        "blocks.6.0.conv_pwl.weight": "_blocks.15._project_conv.weight",
        "blocks.6.0.bn3.bias": "_blocks.15._bn2.bias",
        "conv_head.weight": "_conv_head.weight",
        "bn2.weight": "_bn1.weight",
        "classifier.weight": "_fc.weight",
        "another.weight": "another.weight",
    }
    arrays = {name: np.full(1, number) for number, name in enumerate(names)}
    found = EfficientNetLite().foreign_arrays(arrays)
    assert list(found) == list(names.values())
    assert EfficientNetLite().foreign_arrays(found) is found  # These are its own names.
    deeper = EfficientNetLite(variant=1).foreign_arrays(arrays)
    assert "_blocks.20._bn2.bias" in deeper and "_blocks.5._bn1.running_var" in deeper


@pytest.mark.parametrize(("variant", "stride"), [(0, 32), (1, 8), (2, 16)])
def test_maps_have_the_output_stride(variant: Variant, stride: Literal[8, 16, 32]):
    model = EfficientNetLite(variant=variant, output_stride=stride)
    strides = {"conv3": 4, "conv4": 8, "conv5": min(stride, 16), "conv6": stride}
    assert model.tap_strides == strides
    for height, width in ((65, 33), (1, 7)):
        taps, _ = shapes(model, height, width)
        for name, step in strides.items():
            assert taps[name].shape[1:3] == (-(-height // step), -(-width // step))
    channels = (24, 48, 120, 1280) if variant == 2 else (24, 40, 112, 1280)
    assert tuple(taps[name].shape[-1] for name in strides) == channels


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_the_stem_and_the_blocks_of_stride_4_are_frozen(variant: Variant):
    last = 3 if variant == 0 else 4
    first = (r"backbone/features_0_[01]/", rf"backbone/features_[1-{last}]/")
    assert EfficientNetLite(variant=variant, bn_momentum=0.1).frozen() == first
    frozen = EfficientNetLite(variant=variant).frozen()
    assert frozen == (*first, r"backbone/.*/(scale|bias)$")


def test_variables_do_not_depend_on_stride_precision_or_rematerialization():
    plain, variables = shapes(EfficientNetLite())
    for other in (
        EfficientNetLite(output_stride=8, remat=True),
        EfficientNetLite(dtype=jnp.bfloat16),
    ):
        taps, others = shapes(other)
        assert jax.tree.map(lambda v: (v.shape, v.dtype), others) == jax.tree.map(
            lambda v: (v.shape, v.dtype), variables
        )
        assert {name: tap.dtype for name, tap in taps.items()} == {
            name: jnp.float32 for name in plain
        }


def test_zeros_before_the_image_are_those_of_the_variants_resolution():
    """TensorFlow's SAME padding at 224, 240 and 260 pixels, computed as TensorFlow states it."""
    for variant, size in ((0, 224), (1, 240), (2, 260)):
        size = -(-size // 2)
        for group in EfficientNetLite(variant=variant).groups():  # pyright: ignore[reportArgumentType]
            if group.stride == 1:
                assert group.before == 0
                continue
            left_over = size % 2
            total = group.kernel_size - (1 if left_over else 2)
            assert group.before == total // 2, (variant, group)
            size = -(-size // 2)
    assert size == 9


@pytest.mark.parametrize("variant", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_dilated_network_holds_the_strided_one(variant: Variant, monkeypatch: pytest.MonkeyPatch):
    """Every position between is new, and the old ones keep their values.

    A layer of stride 2 looks at the pixels 2i - b … 2i - b + k - 1, whose middle is the pixel that
    a dilated layer has at this position.
    """
    few_groups(efficientnet_lite, monkeypatch)
    variables = drawn_variables(
        EfficientNetLite(variant=variant), EfficientNetLite(variant=variant), seed=0
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 96, 3)), jnp.float32)
    maps = {}
    for stride in (8, 16, 32):
        model = EfficientNetLite(variant=variant, output_stride=stride)
        program = jax.jit(model.apply).lower(variables, x)
        taps: Any = program.compile(compiler_options=QUICK)(variables, x)
        maps[stride] = np.asarray(taps["conv6"])
    fourth, last = (
        group
        for group in EfficientNetLite(variant=variant).groups()
        if group.stride == 2 and group.features > 48
    )
    a, b = (group.kernel_size // 2 - group.before for group in (fourth, last))
    largest = np.abs(maps[32]).max()
    assert largest > 0.1
    for fine, coarse, step, start in ((16, 32, 2, b), (8, 16, 2, a), (8, 32, 4, a + 2 * b)):
        found = maps[fine][:, start::step, start::step]
        np.testing.assert_allclose(found, maps[coarse], atol=1e-5 * largest)
    assert (a, b) == ((1, 1) if variant == 0 else (0, 0))


@pytest.mark.parametrize("variant", [*(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1)), 2])
def test_features_of_a_padded_image_are_those_of_the_image(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
):
    """At sizes that are even and odd at every stride."""
    few_groups(efficientnet_lite, monkeypatch)
    model = EfficientNetLite(variant=variant)
    variables = drawn_variables(model, model, seed=1)
    rng = np.random.default_rng(2)
    image = jnp.asarray(rng.normal(size=(1, 45, 67, 3)), jnp.float32)
    canvas = jnp.full((1, 64, 81, 3), 9.0).at[:, :45, :67].set(image)
    valid = jnp.zeros((1, 64, 81), bool).at[:, :45, :67].set(True)
    alone, padded = (
        jax.jit(model.apply)
        .lower(variables, *arguments)
        .compile(compiler_options=QUICK)(variables, *arguments)
        for arguments in ((image,), (canvas, valid))
    )
    for name, values in alone.items():
        part = padded[name][:, : values.shape[1], : values.shape[2]]
        largest = float(jnp.abs(values).max())
        assert largest > 0.1
        np.testing.assert_allclose(part, values, rtol=0, atol=2e-5 * largest)


@pytest.mark.slow
def test_bfloat16_is_near_float32():
    model = EfficientNetLite()
    variables = drawn_variables(model, model, seed=3)
    x = jnp.asarray(np.random.default_rng(3).normal(size=(1, 64, 64, 3)), jnp.float32)
    exact, rounded = (
        jax.jit(model.clone(dtype=dtype).apply)
        .lower(variables, x)
        .compile(compiler_options=QUICK)(variables, x)["conv6"]
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    difference = float(jnp.sqrt(jnp.mean((rounded - exact) ** 2) / jnp.mean(exact**2)))
    assert 1e-4 < difference < 0.05, difference
