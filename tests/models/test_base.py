"""A backbone outside the package, a vision transformer, goes wherever one of the package does."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.test_methods import learning, make_batch
from tests.reference.golden_weights import draw
from tests.toys.light_methods import CLASSES, make, names, trained_names
from tests.toys.small_vit import SmallVit
from tests.toys.toy_training import same, train
from wsss_jax.errors import UserError
from wsss_jax.methods.base import Method
from wsss_jax.methods.cam import Cam
from wsss_jax.methods.irnet import IrNet
from wsss_jax.methods.variables import init_variables, variable_shapes
from wsss_jax.models.base import Backbone
from wsss_jax.settings import to_config
from wsss_jax.training.optimizer import assign_rules
from wsss_jax.weights.import_weights import import_backbone
from wsss_jax.weights.npz import load_weights, save_weights

VIT = dict(name="tests.toys.small_vit", width=16)


# The others need no more of a backbone than these, and one of them is trained below.
ALIKE = ("cam", "ecsnet", "lpcam", "pss", "puzzle_cam", "recam", "ssenet")
SOME = [pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in names()]
TRAINED = [pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in trained_names()]


@functools.cache
def initial(name: str) -> Any:
    return init_variables(make(name, VIT), 0)


def test_irnet_refuses_strides_that_do_not_fit_together():
    class Odd(SmallVit):
        @property
        def tap_strides(self) -> dict[str, int]:
            return {"conv3": 4, "conv4": 14, "conv5": 14, "conv6": 14}

    with pytest.raises(UserError, match=r"multiples of that of conv3, found \{'conv3': 4"):
        IrNet(backbone=Odd())


def test_a_dotted_name_finds_it():
    method = make("cam", VIT)
    assert method.backbone == SmallVit(width=16)
    section: Any = to_config(method).backbone
    assert section.name == "tests.toys.small_vit" and section.patch == 14
    with pytest.raises(UserError, match=r"method\.backbone\.pach .*did you mean patch"):
        Method.from_config(dict(name="cam", backbone=dict(VIT, pach=16)), "method")


@pytest.mark.parametrize("name", TRAINED)
def test_its_losses_are_finite_and_reach_every_trainable_parameter(name: str):
    # The crop has 3 × 3 patches, too few for IRNet's pairs and no even number for tiles.
    smaller: dict[str, dict[str, int]] = {
        "irnet": dict(patch=7),
        "puzzle_cam": dict(patch=8, pretrain_size=64),
    }
    backbone = VIT | smaller.get(name, dict(patch=14))
    method = make(name, backbone, **(dict(radius=2) if name == "irnet" else {}))
    (loss, _), grads = learning(method)(make_batch())
    assert np.isfinite(loss) and loss > 0
    assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))
    assert not [path for path, grad in grads.items() if not np.any(np.asarray(grad))]


@pytest.mark.parametrize("name", SOME)
def test_its_predictions_ignore_padding(name: str):
    """Neither side of the image is a multiple of the patch, nor is the canvas."""
    method = make(name, VIT)
    params, variables = initial(name)
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (1, 75, 97, 3), dtype=np.uint8))
    canvas = jnp.full((1, 130, 101, 3), 200, jnp.uint8).at[:, :75, :97].set(image)
    valid = jnp.zeros((1, 130, 101), bool).at[:, :75, :97].set(True)
    predict = jax.jit(functools.partial(method.predict, {"params": params, **variables}))
    exact, padded = predict(image, jnp.ones((1, 75, 97), bool)), predict(canvas, valid)
    assert exact.keys() == padded.keys() == set(method.outputs)
    for key, value in exact.items():
        stride = method.stride(key)
        assert value.shape[1:3] == (-(-75 // stride), -(-97 // stride))
        part = padded[key][:, : value.shape[1], : value.shape[2]]
        largest = float(jnp.abs(value).max())
        assert largest > 0
        np.testing.assert_allclose(part, value, rtol=0, atol=1e-5 * largest)


def test_it_is_trained(tmp_path: Path):
    before, _ = init_variables(make("cam", VIT), 0)
    state, _ = train(tmp_path, 2, make("cam", VIT))
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, state.params)
    assert all(jax.tree.leaves(moved))


def test_rates_fall_towards_the_patches():
    method = make("cam", VIT, head_lr=10.0)
    rules = assign_rules(variable_shapes(method)[0], method.param_rules())
    rates = {path.split("/")[1]: r.lr for path, r in rules.items() if path.startswith("backbone")}
    assert rates == {
        "norm": 1.0,
        "blocks_3": 0.75,
        "blocks_2": 0.75**2,
        "blocks_1": 0.75**3,
        "blocks_0": 0.75**4,
        "patch_embed_proj": 0.75**5,
        "cls_token": 0.75**5,
        "pos_embed": 0.75**5,
    }
    assert rules["fc8/kernel"].lr == 10.0
    decayed = {path for path, rule in rules.items() if rule.decay}
    assert decayed == {path for path in rules if path.endswith("kernel")}


def test_the_default_groups_are_those_of_affinitynet():
    class Plain(SmallVit):
        param_rules = Backbone.param_rules

        def frozen(self) -> tuple[str, ...]:
            return (r"backbone/(pos_embed|patch_embed_proj/)",)

    method = Cam(num_classes=CLASSES, backbone=Plain(width=16))
    rules = assign_rules(variable_shapes(method)[0], method.param_rules())
    assert {path for path, rule in rules.items() if rule.frozen} == {
        "backbone/pos_embed",
        "backbone/patch_embed_proj/kernel",
        "backbone/patch_embed_proj/bias",
    }
    bias, kernel = (rules[f"backbone/blocks_1/mlp_fc1/{leaf}"] for leaf in ("bias", "kernel"))
    assert (bias.lr, bias.decay, kernel.lr, kernel.decay) == (2.0, False, 1.0, True)


def test_shapes_of_parameters_do_not_depend_on_the_image():
    method = make("cam", VIT)
    params, variables = variable_shapes(method)
    for side in (1, 14, 70, 97):
        image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        found: Any = jax.eval_shape(method.model().init, jax.random.key(0), image)
        assert same_shapes(dict(found), {"params": params, **variables})


def same_shapes(a: Any, b: Any) -> bool:
    return jax.tree.map(jnp.shape, a) == jax.tree.map(jnp.shape, b)


@functools.cache
def timm_arrays(grid: int = 7) -> dict[str, np.ndarray]:
    """A file's arrays: rows of query, key and value, another grid of positions, a classifier."""
    width = 16
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + grid * grid, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (1000, width),
        "head.bias": (1000,),
    }
    for number in range(4):
        block = f"blocks.{number}"
        for name, out, into in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            shapes[f"{block}.{name}.weight"] = (out, into)
            shapes[f"{block}.{name}.bias"] = (out,)
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"{block}.{name}"] = (width,)
        shapes |= {f"{block}.ls1.gamma": (width,), f"{block}.ls2.gamma": (width,)}
    return {name: draw(name, shape, 0) for name, shape in shapes.items()}


def import_timm(path: Path, arrays: dict[str, np.ndarray]) -> Any:
    np.savez(path, allow_pickle=False, **arrays)
    params, variables = initial("cam")
    return import_backbone(path, SmallVit(width=16), params, variables)[0]


def test_its_file_is_imported_under_its_names_with_positions_resized(tmp_path: Path):
    arrays = timm_arrays()
    params = import_timm(tmp_path / "vit.npz", arrays)
    assert same(params["fc8"], initial("cam")[0]["fc8"])
    found = params["backbone"]
    np.testing.assert_array_equal(found["blocks_2"]["ls1_gamma"], arrays["blocks.2.ls1.gamma"])
    np.testing.assert_array_equal(found["cls_token"], arrays["cls_token"])
    weight = arrays["blocks.1.attn.qkv.weight"]
    np.testing.assert_array_equal(found["blocks_1"]["attn_qkv"]["kernel"], weight.T)
    bias = found["blocks_1"]["attn_qkv"]["bias"]
    np.testing.assert_array_equal(bias, arrays["blocks.1.attn.qkv.bias"])

    positions = found["pos_embed"]
    np.testing.assert_array_equal(positions[:, 0], arrays["pos_embed"][:, 0])
    # A position that both grids have: the middle. Its value is that of the middle tap.
    old, new = (p[0, 1:].reshape(g, g, -1) for p, g in ((arrays["pos_embed"], 7), (positions, 5)))
    np.testing.assert_allclose(new[2, 2], old[3, 3], rtol=1e-6)
    assert not np.allclose(new[1, 2], old[1, 3])
    same_grid = import_timm(tmp_path / "same.npz", timm_arrays(grid=5))["backbone"]["pos_embed"]
    np.testing.assert_array_equal(same_grid, timm_arrays(grid=5)["pos_embed"])


def test_files_that_do_not_fit_are_refused(tmp_path: Path):
    missing, wide, odd, whole = (dict(timm_arrays()) for _ in range(4))
    del missing["blocks.0.ls1.gamma"]
    missing["blocks.4.ls1.gamma"] = np.ones(16)
    wide["pos_embed"] = np.ones((1, 50, 32), np.float32)
    whole["pos_embed"] = np.ones((1, 50, 16), np.int32)
    odd["pos_embed"] = np.ones((1, 48, 16), np.float32)  # no square with or without a class token
    for arrays, message in (
        (missing, r"1 missing: blocks\.0\.ls1\.gamma; 1 unexpected: blocks\.4\.ls1\.gamma"),
        (wide, r"pos_embed \(expected \(1, 26, 16\), found \(1, 26, 32\)"),
        (whole, r"pos_embed \(expected \(1, 26, 16\), found \(1, 50, 16\)"),
        (odd, r"pos_embed \(expected \(1, 26, 16\), found \(1, 48, 16\)"),
    ):
        with pytest.raises(UserError, match=message):
            import_timm(tmp_path / "vit.npz", arrays)


def test_its_weights_are_saved_and_loaded(tmp_path: Path):
    path, method = tmp_path / "weights.npz", make("seam", VIT)
    save_weights(path, *initial("seam"))
    shapes = variable_shapes(method)
    assert same(load_weights(path, *shapes), initial("seam"))

    finer = make("cam", dict(VIT, pretrain_size=112))
    fresh = init_variables(finer, 1)
    with pytest.raises(UserError, match=r"weights of this backbone .* such as .*pos_embed"):
        load_weights(path, *fresh, "backbone")
    params, _ = load_weights(path, *fresh, "backbone", finer.backbone)
    assert params["backbone"]["pos_embed"].shape == (1, 65, 16)
    assert same(params["fc8"], fresh[0]["fc8"])
    inner = (tree["backbone"]["blocks_1"] for tree in (params, initial("seam")[0]))
    assert same(*inner)
    wider = make("cam", dict(VIT, width=32))
    with pytest.raises(UserError, match="weights of this backbone"):
        load_weights(path, *init_variables(wider, 1), "backbone", wider.backbone)
