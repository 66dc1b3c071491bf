"""Vision transformers: golden values, sizes, padding, tokens and attention, what is trained."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.drawing import draw
from wsss_jax.errors import UserError
from wsss_jax.host.interpolation import interpolation_matrix
from wsss_jax.models.augreg import AugReg
from wsss_jax.models.base import Backbone
from wsss_jax.models.clip_image import ClipImage
from wsss_jax.models.dinov2 import DinoV2
from wsss_jax.models.positions import resize_positions
from wsss_jax.models.vit import Vit
from wsss_jax.settings import read
from wsss_jax.training.optimizer import assign_rules
from wsss_jax.weights.import_weights import import_arrays, torch_names

TOY: dict[str, Any] = dict(width=16, depth=2, head_width=8, pretrain_size=24, patch=8)


@functools.cache
def initial(vit: Any) -> Any:
    """Drawn variables, with scales and positions that matter."""
    variables = jax.jit(vit.init)(jax.random.key(0), jnp.zeros((1, 24, 24, 3)))
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [a + 0.2 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def image_of(height: int, width: int, batch: int = 1) -> jax.Array:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(batch, height, width, 3)), jnp.float32)


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    largest = float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * largest)


def test_golden_transformer(shared: Path):
    """Blocks, tokens and attention of ToCo's program at three sizes, and timm's own tokens."""
    with np.load(shared / "golden" / "vit_tiny.npz") as file:
        golden = dict(file)
    shapes = dict(json.loads(str(golden["param_names"])))
    depth, _, tokens, width = golden["blocks_0"].shape
    patch = shapes["patch_embed.proj.weight"][-1]
    model = Vit(
        patch=patch,
        width=width,
        depth=depth,
        head_width=width // int(golden["heads"]),
        pretrain_size=patch * int((tokens - 1) ** 0.5),
        taps=(0, 1, depth + int(golden["aux_layer"])),
    )
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    empty: Any = jax.eval_shape(model.init, jax.random.key(0), x)
    wrapped = {"params": {"backbone": empty["params"]}}
    assert set(torch_names(wrapped, model).values()) == set(shapes)
    arrays = {name: draw(name, tuple(shape), int(golden["seed"])) for name, shape in shapes.items()}
    params = import_arrays(wrapped, arrays, backbone=model)["params"]["backbone"]
    grid = arrays["pos_embed"][0, 1:].reshape(*([int((tokens - 1) ** 0.5)] * 2), width)
    for number in range(3):
        taps: Any = jax.jit(model.apply)({"params": params}, golden[f"image_{number}"])
        for block in range(depth):
            expected = golden[f"blocks_{number}"][block][:, 1:]
            close(taps[f"blocks_{block}"].reshape(expected.shape), expected)
        for name in ("tokens", "aux"):
            expected = golden[f"{name}_{number}"]
            tap = taps[{"tokens": "conv6", "aux": "conv5"}[name]]
            close(tap.reshape(expected.shape), expected)
        close(taps["class_token"], golden[f"cls_{number}"])
        close(taps[f"attention_{depth - 1}"], golden[f"attn_last_{number}"])
        expected = golden[f"pos_{number}"]
        size = expected.shape[:2]
        close(resize_positions(jnp.asarray(grid), size, jnp.array([size]))[0], expected)
        if number == 1:
            timm = model.clone(position_resize="bicubic_antialias")
            expected = golden[f"timm_tokens_{number}"][:, 1:]
            found = jax.jit(timm.apply)({"params": params}, golden[f"image_{number}"])
            close(found["conv6"].reshape(expected.shape), expected)


FORMS: dict[str, Any] = {
    "vit": Vit(**TOY),
    "distilled": Vit(**TOY, distilled=True, registers=2, layer_scale=0.5),
    "augreg": AugReg(**TOY, position_resize="bicubic_antialias"),
    "dinov2": DinoV2(**TOY, registers=4, layer_scale=0.5),
    "clip": ClipImage(**TOY, embedding=6),
}


@pytest.mark.parametrize(
    "form", ["distilled", *(pytest.param(n, marks=pytest.mark.slow) for n in ("vit", "clip"))]
)
def test_a_padded_image_has_the_features_of_the_image(form: str):
    """Sizes that are multiples of the patch and others, and a batch with an empty image."""
    vit = FORMS[form]
    apply = jax.jit(vit.apply)
    sizes = ((21, 27), (40, 16), (5, 3), (0, 0))
    canvas = jnp.full((len(sizes), 40, 32, 3), 7.0)
    valid = jnp.zeros((len(sizes), 40, 32), bool)
    for row, (height, width) in enumerate(sizes):
        part = image_of(height, width)[0] if height else jnp.zeros((0, 0, 3))
        canvas = canvas.at[row, :height, :width].set(part)
        valid = valid.at[row, :height, :width].set(True)
    padded: Any = apply(initial(vit), canvas, valid)
    assert all(np.isfinite(x).all() for x in padded.values())
    for row, (height, width) in enumerate(sizes[:3]):
        exact: Any = apply(initial(vit), image_of(height, width))
        h, w = -(-height // 8), -(-width // 8)
        inside = np.zeros((5, 4), bool)
        inside[:h, :w] = True
        tokens = np.r_[np.ones(vit.prefix_tokens, bool), inside.ravel()]
        for name, expected in exact.items():
            found = padded[name][row]
            if name.startswith("attention_"):
                np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
                assert not found[:, :, ~tokens].any()
                found = found[:, tokens][:, :, tokens]
            elif found.ndim == 3:
                found = found[:h, :w]
            close(found, expected[0])


def test_an_image_of_an_odd_size_is_resized_to_whole_patches():
    vit, image = FORMS["vit"], image_of(21, 27)
    rows, columns = (interpolation_matrix(n, -(-n // 8) * 8, False) for n in (21, 27))
    whole = jnp.einsum("ph,qw,bhwc->bpqc", rows, columns, image, precision="highest")
    apply = jax.jit(vit.apply)
    close(apply(initial(vit), image)["conv6"], apply(initial(vit), whole)["conv6"])


def test_taps_are_the_blocks_that_are_named():
    quarters = FORMS["vit"].clone(depth=4)
    for vit, blocks in ((quarters, (0, 1, 2)), (quarters.clone(taps=(3, 0, 2)), (3, 0, 2))):
        taps: Any = jax.jit(vit.apply)(initial(quarters), image_of(24, 24))
        for name, block in zip(("conv3", "conv4", "conv5"), blocks, strict=True):
            np.testing.assert_array_equal(taps[name], taps[f"blocks_{block}"])


def test_arrays_that_are_not_used_cost_nothing():
    vit, x = FORMS["clip"], jax.ShapeDtypeStruct((1, 24, 24, 3), jnp.float32)

    def flops(*names: str) -> float:
        def some(variables: Any, x: jax.Array) -> Any:
            found: Any = vit.apply(variables, x)
            return {name: found[name] for name in names}

        cost: Any = jax.jit(some).lower(initial(vit), x).compile().cost_analysis()
        return cost["flops"]

    # A last block has products of 12·width² for each token and 4·width for each pair of tokens.
    tokens, width = 10, 16
    block = 2 * (12 * width**2 * tokens + 2 * width * tokens**2)
    first, second = flops("blocks_0"), flops("blocks_1")
    assert block <= second - first < 1.5 * block
    assert flops("attention_1") < second - block / 2
    assert flops("class_token", "conv6") < flops("class_embedding", "embedding")


def test_attention_says_where_each_token_looks():
    """Without positions and with equal patches, all patches get the same attention."""
    vit = FORMS["distilled"]
    variables = jax.tree_util.tree_map_with_path(
        lambda path, a: jnp.zeros_like(a) if "pos_embed" in str(path) else a, initial(vit)
    )
    found = jax.jit(vit.apply)(variables, jnp.ones((1, 24, 24, 3)))["attention_1"]
    patches = np.asarray(found)[..., vit.prefix_tokens :]
    assert vit.prefix_tokens == 4 and patches.shape == (1, 2, 13, 9)
    np.testing.assert_allclose(patches, np.broadcast_to(patches[..., :1], patches.shape), 1e-4)
    assert np.ptp(np.asarray(found)[0, 0, 0]) > 1e-3


def gradients(vit: Any) -> Any:
    def loss(variables: Any) -> Any:
        found: Any = vit.apply(variables, image_of(24, 24), train=True)
        return jnp.sum(found["conv6"] ** 2) + jnp.sum(found["class_token"] ** 2)

    return jax.jit(jax.value_and_grad(loss))(initial(vit.clone(remat=False)))


def test_recomputing_changes_nothing():
    vit = FORMS["distilled"]
    for ours, theirs in zip(
        jax.tree.leaves(gradients(vit.clone(remat=True))),
        jax.tree.leaves(gradients(vit)),
        strict=True,
    ):
        close(ours, theirs)


def test_drop_path_leaves_out_whole_branches_of_single_images():
    vit = FORMS["vit"].clone(drop_path=0.5)
    variables = jax.jit(vit.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    x = jnp.repeat(image_of(8, 8), 400, 0)
    train = jax.jit(functools.partial(vit.apply, train=True))
    key = {"dropout": jax.random.key(2)}
    found: Any = train(variables, x, rngs=key)
    still: Any = jax.jit(vit.apply)(variables, x)
    # The first block has the rate 0; the second one drops either branch of half of the images.
    np.testing.assert_allclose(found["blocks_0"], still["blocks_0"], rtol=1e-4, atol=1e-5)
    change = np.abs(found["blocks_1"] - found["blocks_0"]).max((1, 2, 3))
    assert 0.15 < np.mean(change == 0) < 0.35
    kinds = np.unique(np.round(np.asarray(found["blocks_1"])[:, 0, 0, 0], 4))
    assert len(kinds) == 4


def rules_of(vit: Vit) -> dict[str, Any]:
    shapes: Any = jax.eval_shape(vit.init, jax.random.key(0), jnp.zeros((1, 24, 24, 3)))
    return assign_rules({"backbone": shapes["params"]}, vit.param_rules())


def test_what_is_frozen():
    def frozen(**fields: Any) -> set[str]:
        rules = rules_of(FORMS["distilled"].clone(depth=4, pre_norm=True, embedding=4, **fields))
        return {path.split("/")[1] for path, rule in rules.items() if rule.frozen}

    before = {"cls_token", "dist_token", "reg_token", "pos_embed", "patch_embed_proj", "norm_pre"}
    assert frozen() == set()
    assert frozen(frozen_positions=True) == {"pos_embed"}
    assert frozen(frozen_blocks=1) == before | {"blocks_0"}
    blocks = {f"blocks_{number}" for number in range(4)}
    assert frozen(frozen_blocks=3) == before | blocks - {"blocks_3"}
    assert frozen(frozen_blocks=4) == before | blocks | {"norm", "head"}


def test_ten_blocks_are_not_confused_with_one():
    rules = rules_of(Vit(**{**TOY, "depth": 12}, frozen_blocks=2, layer_decay=0.5))
    assert {path.split("/")[1] for path, rule in rules.items() if rule.frozen} >= {
        "blocks_0",
        "blocks_1",
    }
    for number in range(2, 12):
        rule = rules[f"backbone/blocks_{number}/mlp_fc1/kernel"]
        assert not rule.frozen and rule.lr == 0.5 ** (12 - number) and rule.decay


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(width=100), r"width to be a multiple of head_width \(64\), found 100"),
        (dict(pretrain_size=230), r"pretrain_size to be a multiple of the patch \(16\), found 230"),
        (dict(taps=(1, 2)), r"taps to be three blocks from 0 to 11, found \(1, 2\)"),
        (dict(taps=(1, 2, 12)), "taps to be three blocks from 0 to 11"),
        (dict(frozen_blocks=13), r"frozen_blocks from 0 to the depth \(12\), found 13"),
        (dict(drop_path=1.0), "drop_path from 0 to below 1, found 1"),
        (dict(patch=0), "patch of 1 or more, found 0"),
        (dict(registers=-1), "registers of 0 or more, found -1"),
    ],
)
def test_values_that_cannot_work_are_refused(wrong: dict[str, Any], message: str):
    with pytest.raises(UserError, match=f"expected {message}"):
        read(Backbone, dict(name="vit", **wrong))
