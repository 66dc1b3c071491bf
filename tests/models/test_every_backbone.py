"""Every backbone of the package passes the same checks: a new file is tested by existing.

Where shapes suffice, networks are checked whole. Numbers are those of small ones, which have the
same layers, but fewer or narrower ones.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.toys.compiler import QUICK
from wsss_jax.models import convnext, efficientnet_lite, mobilenet_v2, resnet, resnet38, vgg16
from wsss_jax.models.base import Backbone
from wsss_jax.settings import kind_names, kind_of, read, settings_of
from wsss_jax.training.optimizer import assign_rules, join, parameter_count, split_frozen
from wsss_jax.weights.import_weights import import_arrays
from wsss_jax.weights.names import to_torch, torch_names

OUTSIDE = "tests.toys.small_vit"
NAMES = [*kind_names(Backbone), OUTSIDE]

PARAMETERS: dict[str, list[tuple[dict[str, Any], int]]] = {
    "augreg": [
        (dict(width=192), 5_524_416),
        ({}, 21_665_664),
        (dict(patch=32), 22_493_952),
        (dict(width=768), 85_798_656),
        (dict(width=768, pretrain_size=384), 86_090_496),
        (dict(width=1024, depth=24), 303_301_632),
    ],
    "clip_image": [
        (dict(embedding=512), 86_192_640),
        (dict(embedding=512, patch=32), 87_849_216),
        (dict(width=1024, depth=24, patch=14, embedding=768), 303_966_208),
        (dict(width=1024, depth=24, patch=14, embedding=768, pretrain_size=336), 304_293_888),
    ],
    "convnext": [({}, 27_820_128), (dict(size="small"), 49_454_688)],
    "dinov2": [
        ({}, 22_056_192),
        (dict(width=768), 86_579_712),
        (dict(width=1024, depth=24), 304_367_616),
        # The class token has a position of its own here, as in the published file.
        (dict(registers=4), 22_057_344 + 384),
        (dict(width=768, registers=4), 86_582_016 + 768),
    ],
    "efficientnet_lite": [
        ({}, 3_371_008),
        (dict(variant=1), 4_135_680),
        (dict(variant=2), 4_811_072),
    ],
    "mobilenet_v2": [({}, 2_223_872)],
    "resnet": [({}, 23_508_032), (dict(depth=101), 42_500_160)],
    "resnet38": [({}, 105_070_912)],
    "tiny": [({}, 186_688)],
    "vgg16": [({}, 20_483_904), (dict(fc_features=0, batch_norm=True), 14_723_136)],
    "vit": [  # DeiT and DINO
        (dict(width=192), 5_524_416),
        ({}, 21_665_664),
        (dict(patch=8), 21_670_272),
        (dict(distilled=True), 21_666_432),
        (dict(width=768), 85_798_656),
        (dict(width=768, patch=8), 85_807_872),
        (dict(width=768, distilled=True), 85_800_192),
    ],
    OUTSIDE: [({}, 70_848)],
}
"""The parameters of every backbone with these settings, without any classifier.

With ImageNet's classifier, these are the published numbers.
"""

SIZES = ((65, 33), (1, 7), (47, 90))
CANVAS, IMAGES, MARGIN = (64, 64), ((37, 50), (65, 33), (1, 7)), (27, 14)


def make(name: str, **fields: Any) -> Any:
    return read(Backbone, dict(name=name, **fields))


@functools.cache
def shapes_of(model: Any) -> Any:
    """Shapes of the variables of a backbone, as in a network."""
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    found: Any = jax.eval_shape(model.init, jax.random.key(0), x)
    return {collection: {"backbone": tree} for collection, tree in found.items()}


def check_counts(name: str, *table: tuple[dict[str, Any], int]) -> None:
    for fields, count in table:
        assert parameter_count(shapes_of(make(name, **fields))["params"]) == count, fields


@pytest.mark.parametrize("name", NAMES)
def test_golden_parameter_count(name: str):
    assert PARAMETERS.get(name), f"add {name} and the number of its parameters to the table"
    check_counts(name, PARAMETERS[name][0])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_golden_parameter_counts_with_other_settings(name: str):
    check_counts(name, *PARAMETERS[name][1:])


@pytest.mark.parametrize("name", NAMES)
def test_names_and_rules_cover_the_parameters(name: str):
    model = make(name)
    variables = shapes_of(model)
    names = torch_names(variables, model)
    assert len(set(names.values())) == len(names)
    # A parameter without a rule is refused.
    rules = assign_rules(variables["params"], model.param_rules())
    assert not all(rule.frozen for rule in rules.values())
    statistics = traverse_util.flatten_dict(variables.get("batch_stats", {}), sep="/")
    norms = {path.rpartition("/")[0] for path in statistics}
    of_norms = {path for path in rules if path.rpartition("/")[0] in norms}
    assert all(rules[path].frozen for path in of_norms)
    if "bn_momentum" in settings_of(type(model)):
        free = assign_rules(variables["params"], make(name, bn_momentum=0.1).param_rules())
        moved = {path for path in rules if rules[path].frozen and not free[path].frozen}
        assert moved <= of_norms and (moved or not of_norms)


def narrow_resnet38(patch: pytest.MonkeyPatch) -> None:
    few = resnet38.BLOCKS[:1] + resnet38.BLOCKS[3:4] + resnet38.BLOCKS[6:7] + resnet38.BLOCKS[12:14]
    narrow = (dataclasses.replace(b, middle=b.middle // 16, out=b.out // 16) for b in few)
    patch.setattr(resnet38, "BLOCKS", tuple(narrow))
    patch.setattr(resnet38, "BOTTLENECKS", (("b6", 64), ("b7", 128)))


def few_groups(module: Any, patch: pytest.MonkeyPatch) -> None:
    """Groups of one inverted residual block each."""

    def one(group: Any) -> Any:
        if isinstance(group, tuple):  # expansion, channels, blocks and more
            return (*group[:2], 1, *group[3:])
        return dataclasses.replace(group, blocks=1)

    patch.setattr(module, "_GROUPS", tuple(one(group) for group in module._GROUPS))
    if module is mobilenet_v2:
        patch.setattr(module, "_STRIDE_4", 2)


def narrow_vgg16(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(vgg16, "LEVELS", ((8, 1), (8, 1), (16, 1), (16, 1), (16, 2)))


def few_convnext(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(convnext.BLOCKS, "tiny", (1, 1, 1, 1))
    patch.setattr(convnext, "WIDTHS", (8, 16, 24, 32))


SMALL: dict[str, tuple[Callable[[pytest.MonkeyPatch], None] | None, dict[str, Any]]] = {
    "convnext": (few_convnext, {}),
    "efficientnet_lite": (functools.partial(few_groups, efficientnet_lite), {}),
    "mobilenet_v2": (functools.partial(few_groups, mobilenet_v2), dict(taps=(3, 5))),
    "resnet": (lambda patch: patch.setitem(resnet.BLOCKS, 50, (1, 1, 1, 2)), dict(dilated=True)),
    "resnet38": (narrow_resnet38, {}),
    "tiny": (None, dict(width=8)),
    "vgg16": (narrow_vgg16, dict(fc_features=16, batch_norm=True, pool5=True)),
    **{
        name: (None, dict(width=16, head_width=8, depth=4))
        for name in ("augreg", "clip_image", "dinov2", "vit")
    },
    OUTSIDE: (None, dict(width=16)),
}
"""A change of a module and settings that make its backbone small; others are checked whole."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def build(name: str, **fields: Any) -> Any:
        change, few = SMALL.get(name, (None, {}))
        if change:
            change(monkeypatch)
        return make(name, **few, **fields)

    return build


def compiled(function: Any, *arguments: Any) -> Any:
    """A program that runs once or twice: not worth optimizing."""
    return jax.jit(function).lower(*arguments).compile(compiler_options=QUICK)


def quick(function: Any, *arguments: Any) -> Any:
    """The result of such a program."""
    return compiled(function, *arguments)(*arguments)


def strides(name: str) -> list[dict[str, int]]:
    """The settings for every stride that a backbone can have, the default first."""
    setting = settings_of(kind_of(Backbone, name)).get("output_stride")
    if setting is None:
        return [{}]
    choices = sorted(typing.get_args(setting.type), key=lambda stride: stride != setting.default)
    return [dict(output_stride=stride) for stride in choices]


@pytest.mark.parametrize("name", NAMES)
def test_maps_have_the_strides_that_a_backbone_states(name: str, small: Callable[..., Any]):
    for number, fields in enumerate(strides(name)):
        model = small(name, **fields)
        assert model.tap_strides["conv6"] == fields.get("output_stride", model.tap_strides["conv6"])
        finest = model.tap_strides["conv3"]
        assert all(stride % finest == 0 for stride in model.tap_strides.values())
        assert len(model.pixel_mean) == len(model.pixel_std) == 3
        x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        for size in SIZES if number == 0 else SIZES[:1]:
            x = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
            valid = jax.ShapeDtypeStruct((2, *size), bool)
            taps: Any = jax.eval_shape(model.apply, variables, x, valid)
            assert {"conv3", "conv4", "conv5", "conv6"} <= set(model.tap_strides) <= set(taps)
            for tap, stride in model.tap_strides.items():
                expected = (2, -(-size[0] // stride), -(-size[1] // stride))
                assert taps[tap].shape[:3] == expected, (fields, size, tap)


def drawn(model: Any) -> Any:
    """Variables of which none is zero, and maps of about the size of the image's numbers."""
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes: Any = jax.eval_shape(model.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)

    def value(path: Any, like: Any) -> jax.Array:
        name = path[-1].key
        values = 0.1 * rng.standard_normal(like.shape)
        if name == "kernel":
            values *= 10 * np.prod(like.shape[:-1]) ** -0.5
        elif name in ("scale", "var") or name.endswith("gamma"):
            values += 1
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(value, shapes)


DEPTHWISE = ("convnext", "efficientnet_lite", "mobilenet_v2")
SAME = ("augreg", "dinov2", OUTSIDE)
LIGHT = ("tiny", "vgg16")
"""Programs with depthwise layers take long to compile, and some networks are those of others."""


def sized(name: str) -> list[Any]:
    """Every size of an image, at each of the strides in turn; most are slow."""
    found = []
    for number, size in enumerate(IMAGES):
        fields = strides(name)[number % len(strides(name))]
        slow = name in DEPTHWISE + SAME or (number > 0 and name not in LIGHT)
        label = "-".join(map(str, (name, *fields.values(), *size)))
        marks = [pytest.mark.slow] if slow else []
        found.append(pytest.param(name, fields, size, id=label, marks=marks))
    return found


def test_every_stride_has_numbers():
    for name in NAMES:
        cases = [case.values for case in sized(name)]
        assert {size for _, _, size in cases} == set(IMAGES)
        assert all(fields in [case[1] for case in cases] for fields in strides(name)), name


@pytest.mark.parametrize(("name", "fields", "size"), [one for n in NAMES for one in sized(n)])
def test_padding_and_precision_change_little(
    name: str, fields: dict[str, int], size: tuple[int, int], small: Callable[..., Any]
):
    """Padding changes no number, where a backbone says so, and bfloat16 changes them a little."""
    model = small(name, **fields)
    variables = drawn(model)
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(1, *size, 3)), jnp.float32)
    larger = (1, size[0] + MARGIN[0], size[1] + MARGIN[1])
    valid = jnp.zeros(larger, bool).at[:, : size[0], : size[1]].set(True)
    canvas = jnp.full((*larger, 3), 9.0).at[:, : size[0], : size[1]].set(image)
    program = compiled(model.apply, variables, image)
    alone, again = program(variables, image), program(variables, image)
    half = quick(model.clone(dtype=jnp.bfloat16).apply, variables, image)
    padded = quick(model.apply, variables, canvas, valid) if model.exact_padding else {}
    for tap in model.tap_strides:
        np.testing.assert_array_equal(alone[tap], again[tap])
        assert np.isfinite(alone[tap]).all()
        largest = float(jnp.abs(alone[tap]).max())
        assert 0.05 < largest < 1e4, tap
        error = jnp.abs(half[tap].astype(jnp.float32) - alone[tap])
        assert 0 < float(error.max()) < 0.1 * largest and float(error.mean()) < 0.01 * largest, tap
        if model.exact_padding:
            same = padded[tap][:, : alone[tap].shape[1], : alone[tap].shape[2]]
            np.testing.assert_allclose(same, alone[tap], rtol=0, atol=1e-5 * largest, err_msg=tap)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_other_programs_lose_nothing(name: str, small: Callable[..., Any]):
    """Weights that are exported under PyTorch's names and imported again are the same bits."""
    model = small(name)
    variables = {collection: {"backbone": tree} for collection, tree in drawn(model).items()}
    flat: Any = traverse_util.flatten_dict(variables, sep="/")
    arrays = {path: np.asarray(value) for path, value in flat.items()}
    for given in (to_torch(arrays, model), arrays):  # names of other programs, and ours
        found = import_arrays(jax.eval_shape(lambda: variables), given, backbone=model)
        again: Any = traverse_util.flatten_dict(found, sep="/")
        assert again.keys() == arrays.keys()
        for path, array in arrays.items():
            np.testing.assert_array_equal(again[path], array, err_msg=path)
    for path, array in to_torch(arrays, model).items():
        if array.ndim == 4:  # of PyTorch's layout: the axes of the kernel come last
            assert array.shape[2] == array.shape[3], path


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_what_is_trained_alone(name: str, small: Callable[..., Any]):
    model = small(name)
    variables = drawn(model)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, *CANVAS, 3)), jnp.float32)
    params = {"backbone": variables["params"]}
    trained, frozen = split_frozen(params, assign_rules(params, model.param_rules()))
    rest = {collection: tree for collection, tree in variables.items() if collection != "params"}

    def loss(trained: Any) -> jax.Array:
        inner = join(trained, frozen)["backbone"]
        key = {"dropout": jax.random.key(0)}
        taps: Any = model.apply({"params": inner, **rest}, image, train=True, rngs=key)
        return sum(jnp.square(taps[tap]).mean() for tap in model.tap_strides)  # pyright: ignore

    gradient = quick(jax.grad(loss), trained)
    assert set(gradient) == set(trained) and not set(gradient) & set(frozen)
    for path, value in gradient.items():
        assert np.isfinite(value).all() and np.any(np.asarray(value)), path
