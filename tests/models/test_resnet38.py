"""ResNet38: parameter count, names, map sizes; blocks under padding and rematerialised."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.reference import authors_names
from tests.reference.golden_weights import draw
from wsss_jax.errors import UserError
from wsss_jax.models import resnet38
from wsss_jax.models.base import Backbone
from wsss_jax.models.resnet38 import Block, Bottleneck, ResidualBlock, ResNet38
from wsss_jax.settings import read
from wsss_jax.weights.import_weights import torch_names


def shapes_of(size: tuple[int, int] = (64, 64)) -> Any:
    x = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    return jax.eval_shape(ResNet38().init, jax.random.key(0), x)


def drawn(module: Any, *arguments: Any, seed: int = 0) -> Any:
    """Variables of a module, none of them a plain one or zero."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments))
    leaf = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean"}
    return jax.tree_util.tree_map_with_path(
        lambda path, a: jnp.asarray(
            draw(f"{path[-2].key}.{leaf.get(path[-1].key, 'running_var')}", a.shape, seed)
        ),
        shapes,
    )


def random_maps(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def test_parameter_count():
    shapes = shapes_of()
    assert sum(a.size for a in jax.tree.leaves(shapes["params"])) == 105_070_912
    assert sum(a.size for a in jax.tree.leaves(shapes["batch_stats"])) == 47_744


@pytest.mark.parametrize("size", [(448, 448), (65, 97)])
def test_maps(size):
    x = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    taps = jax.eval_shape(
        lambda x: ResNet38(dtype=jnp.bfloat16).init_with_output(jax.random.key(0), x)[0], x
    )
    h, w = (-(-n // 8) for n in size)
    assert {name: a.shape[1:] for name, a in taps.items()} == {
        "conv3": (-(-size[0] // 4), -(-size[1] // 4), 256),
        "conv4": (h, w, 512),
        "conv5": (h, w, 1024),
        "conv6": (h, w, 4096),
    }
    assert {a.dtype for a in taps.values()} == {jnp.dtype(jnp.bfloat16)}


def test_torch_names():
    names = set(
        torch_names({c: {"backbone": t} for c, t in shapes_of().items()}, ResNet38()).values()
    )
    bn = ("weight", "bias", "running_mean", "running_var")
    expected = {"conv1a.weight", *(f"bn7.{leaf}" for leaf in bn)}
    blocks = ["b2", "b2_1", "b2_2", "b3", "b3_1", "b3_2", "b4", *(f"b4_{i}" for i in range(1, 6))]
    blocks += ["b5", "b5_1", "b5_2", "b6", "b7"]
    for block in blocks:
        branches = ["branch2a", "branch2b1"] + (["branch2b2"] if block in ("b6", "b7") else [])
        for branch in branches:
            expected.add(f"{block}.conv_{branch}.weight")
            expected.update(f"{block}.bn_{branch}.{leaf}" for leaf in bn)
        if block in ("b2", "b3", "b4", "b5", "b6", "b7"):
            expected.add(f"{block}.conv_branch1.weight")
    assert names == expected


def test_frozen():
    paths = traverse_util.flatten_dict({"backbone": shapes_of()["params"]}, sep="/")
    frozen = {p for p in paths if any(re.match(f, p) for f in ResNet38().frozen())}
    trained = set(paths) - frozen
    assert trained and all(
        re.fullmatch(r"backbone/b[3-7](_\d)?/conv_\w+/kernel", p) for p in trained
    )
    norms_too = ResNet38(bn_momentum=3e-4).frozen()
    frozen = {p for p in paths if any(re.match(f, p) for f in norms_too)}
    assert {p.split("/")[1] for p in frozen} == {"conv1a", "b2", "b2_1", "b2_2"}
    assert all(p in frozen for p in paths if p.split("/")[1] in ("conv1a", "b2", "b2_1", "b2_2"))


@pytest.mark.parametrize(
    "block", [Block("b", 6, 10, stride=2), Block("b", 6, 8, dilations=(1, 2))], ids=["s2", "d2"]
)
def test_block_under_padding(block):
    module = ResidualBlock(block)
    x = random_maps(1, 13, 12, 8)
    valid = np.zeros((1, 13, 12), bool)
    valid[:, :9, :7] = True
    variables = drawn(module, x, None)
    apply: Any = module.apply
    padded, active = apply(variables, x, jnp.asarray(valid))
    alone, alone_active = apply(variables, x[:, :9, :7], None)
    h, w = alone.shape[1:3]
    assert (h, w) == (-(-9 // block.stride), -(-7 // block.stride))
    np.testing.assert_allclose(padded[:, :h, :w], alone, atol=1e-5)
    np.testing.assert_allclose(active[:, :9, :7], alone_active, atol=1e-5)


def test_block_by_hand():
    """Without its second convolution a block is its shortcut: x, or the projected relu(bn(x))."""
    x = random_maps(1, 4, 4, 3)
    module: Any = ResidualBlock(Block("b", 3, 3))
    variables = drawn(module, x, None)
    assert "conv_branch1" not in variables["params"]
    silent = jax.tree_util.tree_map_with_path(
        lambda p, a: a * 0 if p[-2].key == "conv_branch2b1" else a, variables
    )
    np.testing.assert_array_equal(module.apply(silent, x, None)[0], x)
    bn, stats = silent["params"]["bn_branch2a"], silent["batch_stats"]["bn_branch2a"]
    normal = (x - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-5) * bn["scale"] + bn["bias"]
    active = jax.nn.relu(normal)
    np.testing.assert_allclose(module.apply(silent, x, None)[1], active, atol=1e-5)
    wide: Any = ResidualBlock(Block("b", 3, 5, stride=2))
    variables = drawn(wide, x, None)
    silent = jax.tree_util.tree_map_with_path(
        lambda p, a: a * 0 if p[-2].key == "conv_branch2b1" else a, variables
    )
    kernel = silent["params"]["conv_branch1"]["kernel"][0, 0]
    np.testing.assert_allclose(
        wide.apply(silent, x, None)[0], active[:, ::2, ::2] @ kernel, atol=1e-5
    )


def test_bottleneck_under_padding_and_dropout():
    module = Bottleneck(16, dropout=0.5)
    x = random_maps(1, 12, 11, 8)
    valid = np.zeros((1, 12, 11), bool)
    valid[:, :7, :9] = True
    variables = drawn(module, x, None, False)
    padded, _ = module.apply(variables, x, jnp.asarray(valid), False)
    alone, _ = module.apply(variables, x[:, :7, :9], None, False)
    np.testing.assert_allclose(padded[:, :7, :9], alone, atol=1e-5)
    key = {"dropout": jax.random.key(1)}
    dropped, _ = module.apply(variables, x, None, True, rngs=key)
    kept, _ = module.apply(variables, x, None, False)
    assert jnp.abs(dropped - kept).max() > 0.1
    off = Bottleneck(16, dropout=0.0)
    np.testing.assert_array_equal(off.apply(variables, x, None, True, rngs=key)[0], kept)


def test_rematerialised_gradients(monkeypatch):
    monkeypatch.setattr(resnet38, "BLOCKS", (Block("b4", 8, 8, stride=2),))
    monkeypatch.setattr(resnet38, "BOTTLENECKS", (("b6", 16),))
    x = random_maps(1, 8, 8, 3)
    variables = drawn(ResNet38(dropout=(0.3,)), x)

    def gradient(remat: bool) -> tuple[Any, str]:
        network = ResNet38(dropout=(0.3,), remat=remat)

        @jax.jit
        @jax.grad
        def function(params):
            key = {"dropout": jax.random.key(0)}
            taps: Any = network.apply({**variables, "params": params}, x, train=True, rngs=key)
            return taps["conv6"].sum()

        return function(variables["params"]), str(jax.make_jaxpr(function)(variables["params"]))

    (kept, plain), (formed_again, rematerialised) = gradient(False), gradient(True)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), kept, formed_again
    )
    assert "remat" in rematerialised and "remat" not in plain


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("arg:conv1a_weight", "conv1a.weight"),
        ("arg:res4b1_branch2a_weight", "b4_1.conv_branch2a.weight"),
        ("res4a_branch1_weight", "b4.conv_branch1.weight"),
        ("res6a_branch2b2_weight", "b6.conv_branch2b2.weight"),
        ("bn4a_branch2a_gamma", "b4.bn_branch2a.weight"),
        ("bn2b2_branch2b1_beta", "b2_2.bn_branch2b1.bias"),
        ("aux:bn5a_branch2a_moving_mean", "b5.bn_branch2a.running_mean"),
        ("aux:bn7_moving_var", "bn7.running_var"),
        ("b4_1.bn_branch2a.running_mean", "b4_1.bn_branch2a.running_mean"),
    ],
)
def test_mxnet_names(name, expected):
    array = np.ones(3)
    found = ResNet38().foreign_arrays({name: array})
    assert list(found) == [expected] and found[expected] is array


def test_the_mxnet_classifier_is_left_out():
    names = ("linear1000_weight", "arg:linear1000_bias", "arg:conv1a_weight")
    assert list(ResNet38().foreign_arrays({n: np.ones(3) for n in names})) == ["conv1a.weight"]


def test_a_whole_file_of_mxnet_has_one_place_for_each_array():
    shapes = {collection: {"backbone": tree} for collection, tree in shapes_of().items()}
    ours = set(torch_names(shapes, ResNet38()).values())
    theirs = authors_names.mxnet(ours)
    assert len(set(theirs.values())) == len(ours) == 43 + 4 * 37  # convolutions and batch norms
    arrays = {name: np.array(number) for number, name in enumerate(theirs.values())}
    classifier = {f"arg:linear1000_{leaf}": np.array(-1) for leaf in ("weight", "bias")}
    found = ResNet38().foreign_arrays({**arrays, **classifier})
    assert set(found) == ours
    assert all(found[name] is arrays[theirs[name]] for name in ours)


def test_unknown_backbone_and_field():
    with pytest.raises(UserError, match="resnet39"):
        read(Backbone, {"name": "resnet39"})
    with pytest.raises(UserError, match="layers"):
        read(Backbone, {"name": "layers"})
    with pytest.raises(UserError, match="droput"):
        read(Backbone, {"name": "resnet38", "droput": 0.1})
