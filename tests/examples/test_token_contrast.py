"""The example outside the package: terms against slow versions, transformer, command."""

import ast
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import token_contrast as example
from tests.methods import test_methods
from tests.toys import light_methods
from wsss_jax import main
from wsss_jax.data.formats.cam_files import read_cams
from wsss_jax.data.masks import decode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import read_json
from wsss_jax.methods.base import Method, Step
from wsss_jax.methods.variables import init_variables
from wsss_jax.models.base import Backbone
from wsss_jax.settings import read
from wsss_jax.training.metrics import read_metrics

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "examples.token_contrast"
VIT = dict(name=NAME, width=16, depth=4, heads=2, grid=3)
LIGHT: dict[str, Any] = dict(
    features=8,
    embedding=8,
    mask_start=0,
    label_scales=(1.0,),
    dilations=(1,),
    refinements=1,
    high=0.6,
    low=0.4,
    negative_below=1.0,
    local_crops=dict(count=2, size=16),
)


def make(**fields: Any) -> Any:
    return light_methods.make(NAME, VIT, **LIGHT | fields)


@functools.cache
def initial() -> Any:
    return init_variables(make(), 0)[0]


def batch_of(method: Method, seed: int = 0) -> dict[str, jax.Array]:
    batch = light_methods.make_batch(4, seed)
    keys = method.batch_spec().shapes(4, light_methods.CROP, light_methods.CLASSES)
    return {key: jnp.asarray(batch[key]) for key in keys}


def step_of(method: Method, params: Any, batch: Any, step: int = 0) -> Any:
    return Step(
        params=params,
        model_state={},
        extra=method.init_extra(params),
        batch=batch,
        rng=jax.random.key(1),
        step=jnp.int32(step),
    )


# The method


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(
            check, marks=pytest.mark.slow if check is test_methods.test_jit_equals_eager else ()
        )
        for check in test_methods.CHECKS
    ],
    ids=lambda check: check.__name__,
)
def test_it_passes_the_checks_of_every_method(
    check: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
):
    """On its own transformer, and one check on a convolutional network of the package."""
    own = "frozen" not in check.__name__  # that one names a backbone with frozen parameters
    fields = LIGHT | dict(backbone=VIT) if own else LIGHT
    monkeypatch.setitem(light_methods.FIELDS, NAME, fields)
    check(NAME)


def test_terms_count_from_their_first_step():
    late = make(contrast_start=2, mask_start=4)
    loss_of = jax.jit(late.loss)
    for step, counted in ((1, ()), (2, ("tokens", "crops")), (4, ("tokens", "crops", "masks"))):
        loss, aux = loss_of(step_of(late, initial(), batch_of(late), step))
        weights = dict(tokens=0.2, crops=0.5, masks=0.1)
        expected = aux.terms["cls"] + aux.terms["cls_aux"]
        expected += sum(weights[name] * aux.terms[name] for name in counted)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_the_ema_teacher_moves_and_is_the_network_in_use():
    method, params = make(decay=0.75), initial()
    step = step_of(method, params, batch_of(method))
    new = jax.tree.map(lambda p: np.asarray(p) + 1, params)
    extra = jax.jit(method.after_step)(step, new)
    for old, moved in zip(jax.tree.leaves(params), jax.tree.leaves(extra["teacher"]), strict=True):
        np.testing.assert_allclose(moved, np.asarray(old) + 0.25, rtol=1e-5, atol=1e-6)
    assert method.inference_params(new, extra) is extra["teacher"]


def test_pseudo_labels_are_the_teachers():
    """Its image is the batch's first view, and no gradient comes from them."""
    method, params = make(), initial()
    batch = batch_of(method)
    step = step_of(method, params, batch)
    other = jax.tree.map(lambda p: -p, params)
    masks = jax.jit(lambda step: method.loss(step)[1].maps["pseudo_masks"])

    drawn = masks(step)
    assert set(np.unique(drawn.argmax(-1))) > {0}
    np.testing.assert_array_equal(masks(step.replace(params=other)), drawn)
    changed = step.replace(batch=batch | {"image_strong": 255 - batch["image_strong"]})
    np.testing.assert_array_equal(masks(changed), drawn)
    assert (masks(step.replace(extra={"teacher": other})) != drawn).any()


def test_the_box_of_a_local_crop_says_what_it_shows(monkeypatch: pytest.MonkeyPatch):
    """A crop is positive where its box lies on the teacher's foreground."""
    method, params = make(), initial()
    label = jnp.zeros((4, 4, 4), jnp.int32).at[:, :, 2:].set(1)  # the right half is foreground
    monkeypatch.setattr(example, "thresholded", lambda *_: label)

    def as_numbers(taught: Any, views: Any, positive: jax.Array, temperature: float) -> jax.Array:
        return positive @ jnp.array([1.0, 2.0, 4.0])

    monkeypatch.setattr(example, "crop_contrast", as_numbers)
    batch = batch_of(method)
    batch["valid"] = jnp.ones_like(batch["valid"])
    batch["local_box"] = jnp.tile(jnp.array([[4.0, 1, 20, 12], [4, 18, 20, 12]]), (4, 1, 1))
    loss_of = jax.jit(lambda step: method.loss(step)[1].terms["crops"])
    np.testing.assert_array_equal(loss_of(step_of(method, params, batch)), [1 + 4] * 4)


def test_settings_of_the_transformer_are_checked():
    for wrong in (dict(patch=6), dict(depth=2)):
        with pytest.raises(UserError, match="multiple of 4 and depth to be 4 or more"):
            read(Backbone, {**VIT, **wrong})


@functools.cache
def transformer() -> tuple[Any, Any, Any]:
    """(backbone, its variables, the compiled network)"""
    vit: Any = read(Backbone, VIT)
    variables = jax.jit(vit.init)(jax.random.key(0), jnp.ones((1, 24, 24, 3)))
    return vit, variables, jax.jit(vit.apply)


@pytest.mark.parametrize("size", [(24, 24), (21, 27), (40, 9), (5, 3)])
def test_a_padded_image_has_the_features_of_the_image(size):
    vit, variables, apply = transformer()
    image = np.random.default_rng(0).normal(size=(1, *size, 3)).astype(np.float32)
    exact = apply(variables, image)
    canvas, valid = np.full((2, 48, 40, 3), 7.0, np.float32), np.zeros((2, 48, 40), bool)
    canvas[0, : size[0], : size[1]] = image[0]
    valid[0, : size[0], : size[1]] = True
    padded = apply(variables, canvas, valid)
    assert set(exact) == {*vit.tap_strides, "class_token"}
    for tap, stride in vit.tap_strides.items():
        h, w = (-(-side // stride) for side in size)
        assert exact[tap].shape[1:3] == (h, w)
        np.testing.assert_allclose(padded[tap][:1, :h, :w], exact[tap], atol=1e-5)
    np.testing.assert_allclose(padded["class_token"][:1], exact["class_token"], atol=1e-5)
    assert all(np.isfinite(x).all() for x in padded.values())  # the second image is empty


def test_positions_matter():
    """Without them, attention would not know where a token lies."""
    _, variables, apply = transformer()
    tokens = apply(variables, np.ones((1, 24, 24, 3), np.float32))["conv6"]
    assert float(jnp.abs(tokens[0, 0, 0] - tokens[0, 2, 2]).max()) > 1e-3


# The command


def test_from_labels_to_masks_by_the_ordinary_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WSSS_JAX_DATA", str(tmp_path / "data"))
    workdir = tmp_path / "run"
    command = [
        *("main", f"--config={REPOSITORY}/examples/token_contrast_shapes.py"),
        *(f"--workdir={workdir}", "--config.data.train_images=8", "--config.data.val_images=4"),
        *("--config.data.size=64", "--config.train.augment.crop=32"),
        *("--config.train.batch_size=4", "--config.train.steps=4", "--config.train.log_every=1"),
        *("--config.train.method.contrast_start=1", "--config.train.method.mask_start=2"),
        *("--config.train.method.backbone.width=16", "--config.train.method.local_crops.size=16"),
        *("--config.train.method.dilations=(1,)", "--config.train.image_every=0"),
    ]
    for stage in ("cam_train", "cam_val", "masks_train", "masks_val"):
        command.append(f"--config.{stage}.scales=(1.0,)")
    assert main.main(command) == 0, capsys.readouterr()
    results = read_json(workdir / "results.json")["stages"]
    for stage in ("eval_cam_train", "eval_cam_val", "eval_masks_train", "eval_masks_val"):
        assert 0 < results[stage]["metrics"]["miou"] < 1
    keys, cam = read_cams(workdir / "cam_val" / "cams" / "val_00000.npz", 6)
    assert cam.shape == (len(keys), 64, 64)
    mask = (workdir / "masks_val" / "masks" / "val_00000.png").read_bytes()
    assert decode_mask(mask, "val_00000", 6).shape == (64, 64)
    assert (workdir / "report.html").is_file() or (workdir / "report" / "report.html").is_file()
    rows = read_metrics(workdir / "train")
    losses = [row for row in rows if "loss" in row]
    assert len(losses) == 4
    assert 0 < rows[-1]["val/miou"] < 1
    for number, row in enumerate(losses):
        expected = row["loss/cls"] + row["loss/cls_aux"]
        if number >= 1:
            expected += 0.2 * row["loss/tokens"] + 0.5 * row["loss/crops"]
        if number >= 2:
            expected += 1.0 * row["loss/masks"]
        np.testing.assert_allclose(row["loss"], expected, rtol=1e-5)


ROOMS = {
    "wsss_jax.losses",
    "wsss_jax.data.augment",
    "wsss_jax.data.batch_spec",
    "wsss_jax.data.sets.base",
    "wsss_jax.errors",
    "wsss_jax.methods.base",
    "wsss_jax.models.base",
    "wsss_jax.models.layers",
    "wsss_jax.ops.resize",
    "wsss_jax.stages.base",
    "wsss_jax.training.evaluators.base",
    "wsss_jax.training.optimizer",
    "wsss_jax.types",
}
"""What those who extend the package build on; docs/new_method.md describes it."""


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "examples").glob("*.py")), ids=lambda p: p.stem
)
def test_examples_import_only_what_is_public(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            assert not any(name.startswith("_") for name in names)
            modules = [str(node.module)]
            if node.module == "wsss_jax":
                modules = [f"wsss_jax.{name}" for name in names]
        for module in modules:
            assert module.split(".")[0] not in ("tests", "configs", "benchmarks")
            assert not module.startswith("wsss_jax") or module in ROOMS, module
