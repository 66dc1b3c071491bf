"""Vision transformers compute what other programs do, from the files of those programs.

``tests/golden/vit_programs.npz`` was written by `tests.reference.torch_vits`. It has the names and
shapes in files and the features of drawn weights, so no other program is needed here.
"""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.drawing import draw
from tests.toys.toy_training import same
from wsss_jax.errors import UserError
from wsss_jax.models.base import Backbone
from wsss_jax.models.positions import PositionResize, resize_positions
from wsss_jax.settings import read, settings_of
from wsss_jax.weights.architectures import guess
from wsss_jax.weights.import_weights import import_backbone

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "vit_programs.npz"

SMALL: dict[str, Any] = dict(width=32, depth=2, head_width=16, patch=8, pretrain_size=32)
VIT = dict(SMALL, name="vit")
DISTILLED = dict(VIT, distilled=True)
AUGREG = dict(SMALL, name="augreg")
DINOV2 = dict(SMALL, name="dinov2", patch=14, pretrain_size=70)
REGISTERS = dict(DINOV2, registers=4, position_resize="bicubic_antialias")
CLIP = dict(SMALL, name="clip_image", embedding=16)
CASES: dict[str, dict[str, Any]] = {
    "timm_vit": dict(VIT, position_resize="bicubic_antialias"),
    "timm_deit_distilled": DISTILLED,
    "timm_dinov2": dict(DINOV2, position_resize="bicubic_antialias"),
    "timm_dinov2_registers": REGISTERS,
    "timm_clip": dict(CLIP, embedding=0, position_resize="bicubic_antialias"),
    "hf_vit": dict(VIT, norm_epsilon=1e-12),
    "hf_vit_classifier": dict(VIT, norm_epsilon=1e-12),
    "hf_vit_modules": dict(VIT, norm_epsilon=1e-12),
    "hf_deit_distilled": dict(DISTILLED, norm_epsilon=1e-12),
    "hf_dinov2": dict(DINOV2, position_resize="bicubic"),
    "hf_dinov2_registers": REGISTERS,
    "hf_clip": CLIP,
    "openai_clip": CLIP,
    "open_clip_image": dict(CLIP, activation="gelu"),
    "augreg": AUGREG,
    "big_vision": AUGREG,
}


def golden(case: str) -> dict[str, Any]:
    with np.load(GOLDEN) as file:
        found = {n.split(":")[1]: file[n] for n in file.files if n.startswith(f"{case}:")}
    shapes = json.loads(str(found["arrays"]))
    return found | {"arrays": {n: draw(n, tuple(shape), 0) for n, shape in shapes.items()}}


def imported(backbone: Backbone, arrays: dict[str, np.ndarray]) -> Any:
    """The variables from a file of the arrays."""
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes: Any = jax.eval_shape(backbone.init, jax.random.key(0), x)
    named: dict[str, Any] = arrays
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        np.savez(path, allow_pickle=False, **named)
        params, _ = import_backbone(path, backbone, {"backbone": shapes["params"]}, {})
    return {"params": params["backbone"]}


def test_every_recorded_case_is_compared():
    with np.load(GOLDEN) as file:
        assert {name.split(":")[0] for name in file.files} == {*CASES, "positions"}


@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_the_other_program(case: str):
    found, backbone = golden(case), read(Backbone, CASES[case])
    variables = imported(backbone, found["arrays"])
    rng, size = np.random.default_rng(1), found["size"]
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    taps: Any = jax.jit(backbone.apply)(variables, x)
    tokens, prefix = found["tokens"], backbone.prefix_tokens  # pyright: ignore[reportAttributeAccessIssue]
    largest = np.abs(tokens).max()
    ours = np.asarray(taps["conv6"]).reshape(tokens[:, prefix:].shape)
    np.testing.assert_allclose(ours, tokens[:, prefix:], rtol=0, atol=1e-5 * largest)
    np.testing.assert_allclose(taps["class_token"], tokens[:, 0], rtol=0, atol=1e-5 * largest)
    if CASES[case].get("distilled"):
        ours = taps["distillation_token"]
        np.testing.assert_allclose(ours, tokens[:, 1], rtol=0, atol=1e-5 * largest)
    if CASES[case].get("embedding"):
        theirs = found["embedding"]
        np.testing.assert_allclose(
            taps["class_embedding"], theirs, rtol=0, atol=1e-5 * np.abs(theirs).max()
        )


@pytest.mark.parametrize("case", CASES)
def test_settings_are_found_by_names_and_shapes(case: str):
    """Those that the file shows, also of networks with few blocks."""
    found, backbone = guess(golden(case)["arrays"]), read(Backbone, CASES[case])
    assert found is not None and found.certain and not found.compared.resized
    others = {"embedding", "layer_scale", *backbone.not_in_files}
    for name in settings_of(type(backbone)).keys() - others:
        assert getattr(found.backbone, name) == getattr(backbone, name), name
    scales = (one.layer_scale > 0 for one in (found.backbone, backbone))  # pyright: ignore[reportAttributeAccessIssue]
    assert len(set(scales)) == 1
    kinds = {type(one) for one in (found.backbone, *found.also)}
    assert type(backbone) in kinds and len(kinds) == 4


@pytest.mark.parametrize(
    ("how", "theirs"),
    [
        ("bicubic", "bicubic"),
        ("bicubic_offset", "offset"),
        ("bicubic_antialias", "antialias"),
    ],
)
def test_positions_are_resized_as_in_the_programs(how: PositionResize, theirs: str):
    found = golden("positions")
    grid = jnp.asarray(found["grid"])
    sizes = [tuple(found[name].tolist()) for name in found if name.startswith("size_")]
    assert len(sizes) == 6
    resized = jax.jit(resize_positions, static_argnums=(1, 3))
    # One padded batch of all sizes, whose last image is empty.
    batch = resized(grid, (27, 31), jnp.array([*sizes, (0, 0)]), how)
    assert np.isfinite(batch).all()
    for number, size in enumerate(sizes):
        expected = found[f"out_{theirs}_{number}"]
        part = batch[number, : size[0], : size[1]]
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        if size == (7, 7):
            np.testing.assert_array_equal(part, grid)
    alone = resized(grid, sizes[1], jnp.array([sizes[1]]), how)[0]
    np.testing.assert_allclose(alone, batch[1, : sizes[1][0], : sizes[1][1]], rtol=0, atol=1e-6)


def test_a_file_of_dinov2s_authors():
    """The class token has a position, registers have another name, and blocks come in chunks."""
    theirs, found = golden("timm_dinov2_registers"), {}
    position = np.full((1, 1, 32), 0.25, np.float32)
    for name, array in theirs["arrays"].items():
        found[re.sub(r"^blocks\.(\d)\.", r"blocks.\1.\1.", name)] = array
    found["register_tokens"] = found.pop("reg_token")
    found["cls_token"] = found["cls_token"] - position
    found["pos_embed"] = np.concatenate([position, found["pos_embed"]], 1)
    found["mask_token"] = np.ones((1, 32), np.float32)
    backbone = read(Backbone, REGISTERS)
    ours, expected = imported(backbone, found), imported(backbone, theirs["arrays"])
    for name in ("cls_token", "pos_embed"):
        assert ours["params"][name].shape == expected["params"][name].shape
    added = [v["params"]["cls_token"] + v["params"]["pos_embed"][:, :1] for v in (ours, expected)]
    np.testing.assert_allclose(added[0], added[1], atol=1e-6)
    for variables in (ours, expected):
        del variables["params"]["cls_token"]
        variables["params"]["pos_embed"] = variables["params"]["pos_embed"][:, 1:]
    assert same(ours, expected)


def test_a_block_without_its_keys_is_refused():
    arrays = golden("hf_vit")["arrays"]
    del arrays[next(name for name in arrays if "key.weight" in name)]
    with pytest.raises(UserError, match=r"blocks\.0\.attn\.qkv\.weight \(expected \(32, 96\)"):
        imported(read(Backbone, VIT), arrays)


def test_the_golden_file_is_what_the_programs_compute(tmp_path: Path):
    python = os.environ.get("WSSS_TORCH_PYTHON")
    if not python:
        pytest.skip("set WSSS_TORCH_PYTHON to a Python with torch, timm, transformers, open_clip")
    subprocess.run(
        [python, "tests/reference/torch_vits.py", str(tmp_path / "now.npz")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
        capture_output=True,
        timeout=300,
    )
    with np.load(GOLDEN) as recorded, np.load(tmp_path / "now.npz") as now:
        assert set(recorded.files) == set(now.files)
        for name in recorded.files:
            if recorded[name].dtype.kind == "f":
                largest = np.abs(recorded[name]).max()
                np.testing.assert_allclose(
                    now[name], recorded[name], rtol=0, atol=1e-5 * largest, err_msg=name
                )
            else:
                np.testing.assert_array_equal(now[name], recorded[name], err_msg=name)
