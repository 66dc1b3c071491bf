"""Weights under PyTorch names: layouts, and every way a file can be wrong."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util

from tests.reference.golden_weights import drawn_arrays
from wsss_jax.errors import UserError
from wsss_jax.methods.base import Method
from wsss_jax.methods.cam import Cam
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.models.heads.base import Head
from wsss_jax.models.mobilenet_v2 import MobileNetV2
from wsss_jax.models.tiny import Tiny
from wsss_jax.models.torch_names import from_torch_layout
from wsss_jax.models.vgg16 import Vgg16
from wsss_jax.settings import kind_names
from wsss_jax.weights.checkpoint import HEADS, read_checkpoint
from wsss_jax.weights.import_weights import (
    check_backbone,
    check_network,
    import_arrays,
    import_backbone,
    torch_names,
)
from wsss_jax.weights.npz import save_weights

TINY = Tiny(width=8)
CAM = Cam(num_classes=3, backbone=TINY)


@pytest.fixture(scope="module")
def shapes() -> Any:
    """Shapes of a small network with a backbone and a head."""
    x = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    return jax.eval_shape(CAM.model().init, jax.random.key(0), x)


@pytest.fixture
def arrays(shapes) -> dict[str, np.ndarray]:
    return drawn_arrays(shapes, TINY, seed=0)


def test_layouts():
    conv = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)  # OIHW
    assert from_torch_layout(conv)[4, 6, 1, 0] == conv[0, 1, 4, 6]
    depthwise = np.arange(6 * 9).reshape(6, 1, 3, 3)
    assert from_torch_layout(depthwise).shape == (3, 3, 1, 6)
    assert from_torch_layout(np.zeros((10, 4))).shape == (4, 10)
    assert from_torch_layout(np.zeros(4)).shape == (4,)


def test_import_puts_every_array_in_its_place(shapes, arrays):
    heard: list[str] = []
    result = import_arrays(shapes, arrays, backbone=TINY, source="a file", log=heard.append)
    flat = traverse_util.flatten_dict(result, sep="/")
    for path, name in torch_names(shapes, TINY).items():
        np.testing.assert_array_equal(flat[path], from_torch_layout(arrays[name]))
    assert "fc8.weight" in arrays and "layer_0.conv.weight" in arrays
    assert heard == [f"{len(arrays)} arrays from a file"]


def test_wrapper_prefix_counters_and_precision(shapes, arrays):
    wrapped = {f"module.{name}": array.astype(np.float64) for name, array in arrays.items()}
    wrapped["module.layer_0.norm.num_batches_tracked"] = np.array(5)
    result = import_arrays(shapes, wrapped, backbone=TINY)
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype(jnp.float32)}


def test_differences_are_named(shapes, arrays):
    del arrays["layer_1.conv.weight"]
    arrays["layer_9.conv.weight"] = np.zeros(3)
    arrays["layer_0.norm.bias"] = np.zeros(5)
    with pytest.raises(UserError) as error:
        import_arrays(shapes, arrays, backbone=TINY, source="w.npz")
    message = str(error.value)
    assert "1 missing: layer_1.conv.weight" in message
    assert "1 unexpected: layer_9.conv.weight" in message
    assert "layer_0.norm.bias (expected (8,), found (5,)" in message
    assert "w.npz" in message and "\n" not in message


def test_long_lists_are_shortened(shapes):
    with pytest.raises(UserError, match=r"missing: .* and \d+ more"):
        import_arrays(shapes, {}, backbone=TINY)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(shapes, arrays, value):
    arrays["fc8.weight"] = np.full_like(arrays["fc8.weight"], value)
    with pytest.raises(UserError, match=r"fc8\.weight \(expected finite numbers\)"):
        import_arrays(shapes, arrays, backbone=TINY)


def test_numbers_that_float32_cannot_hold(shapes, arrays):
    shape = arrays["fc8.weight"].shape
    found = import_arrays(shapes, arrays | {"fc8.weight": np.full(shape, 1e30)}, backbone=TINY)
    assert (found["params"]["fc8"]["kernel"] == np.float32(1e30)).all()
    with pytest.raises(UserError, match=r"fc8\.weight \(expected finite numbers\)"):
        import_arrays(shapes, arrays | {"fc8.weight": np.full(shape, 1e300)}, backbone=TINY)


def test_ignored_names_are_left_out_but_not_missing(shapes, arrays):
    heads, heard = r"(fc8|classifier)\..*", list[str]()
    more = arrays | {"classifier.weight": np.ones(3, np.float32)}
    result = import_arrays(shapes, more, backbone=TINY, ignore=heads, log=heard.append)
    assert jax.tree.structure(result) == jax.tree.structure(shapes)
    assert heard == [f"{len(arrays)} arrays from the weights; 1 left out: classifier.weight"]
    with pytest.raises(UserError, match=r"found 1 unexpected: classifier\.weight"):
        import_arrays(shapes, more, backbone=TINY)
    del more["fc8.weight"]
    with pytest.raises(UserError, match=r"found 1 missing: fc8\.weight: use the file of this"):
        import_arrays(shapes, more, backbone=TINY, ignore=heads)


def test_a_name_with_and_without_the_wrappers_prefix(shapes, arrays):
    arrays["module.stem.weight"] = np.zeros_like(arrays["stem.weight"])
    for twice in (arrays, dict(reversed(arrays.items()))):
        with pytest.raises(
            UserError, match=r"expected one array stem\.weight, found .*FILE,part=module"
        ):
            import_arrays(shapes, twice, backbone=TINY)


def test_backbone_from_file(shapes, arrays, tmp_path):
    variables = jax.tree.map(lambda a: jnp.full(a.shape, 7.0), shapes)
    path = tmp_path / "weights.npz"
    np.savez(path, allow_pickle=False, **arrays)
    params, others = import_backbone(path, TINY, variables["params"], {})
    assert others == {}
    assert (params["fc8"]["kernel"] == 7).all()
    np.testing.assert_array_equal(
        params["backbone"]["layer_3"]["norm"]["scale"], arrays["layer_3.norm.weight"]
    )


def saved(path: Path, arrays: Mapping[str, Any]) -> Path:
    np.savez(path, allow_pickle=False, **arrays)
    return path


HEADS_OF_PROGRAMS = {
    "mmsegmentation": ("decode_head.conv_seg.weight", "auxiliary_head.0.convs.0.bn.bias"),
    "dinov2": ("dino_head.mlp.0.weight", "dino_head.last_layer.weight_g", "ibot_head.mlp.2.bias"),
    "swav": ("projection_head.0.weight", "prototypes.weight"),
    "moco": ("queue", "queue_ptr", "fc.2.weight"),
    "byol": ("projector.0.weight", "predictor.3.bias"),
    "torchvision": ("classifier.4.weight", "aux_classifier.0.weight"),
}


@pytest.mark.parametrize("program", HEADS_OF_PROGRAMS)
@pytest.mark.parametrize("prefix", ["", "backbone.", "module.", "_orig_mod.", "module._orig_mod."])
def test_heads_of_other_programs_are_left_out(
    shapes, arrays, tmp_path: Path, program: str, prefix: str
):
    """Where only the backbone is wanted; the whole network is as strict as ever."""
    del arrays["fc8.weight"]
    inside = "" if prefix == "backbone." else prefix
    heads = {f"{inside}{name}": np.ones(2) for name in HEADS_OF_PROGRAMS[program]}
    named = {f"{prefix}{name}": array for name, array in arrays.items()}
    path = saved(tmp_path / "w.npz", named | heads)
    fresh, records = shapes["params"], list[dict[str, Any]]()
    params, _ = import_backbone(path, TINY, fresh, {}, record=records.append)
    np.testing.assert_array_equal(
        params["backbone"]["layer_3"]["norm"]["scale"], arrays["layer_3.norm.weight"]
    )
    assert records[0]["unexpected"] == sorted(HEADS_OF_PROGRAMS[program])
    check_backbone(path, CAM)
    with pytest.raises(UserError, match=r"1 missing: fc8\.weight"):
        check_network(path, CAM)


METHODS: list[dict[str, Any]] = [
    *(dict(name=name) for name in kind_names(Method) if name != "segmentation"),
    *(dict(name="segmentation", head=dict(name=name)) for name in kind_names(Head)),
]


@pytest.mark.parametrize("section", METHODS, ids=lambda one: one.get("head", one)["name"])
def test_heads_of_all_methods_are_left_out(section: dict[str, Any]):
    """Those of exported networks, under PyTorch's names and ours."""
    tiny = dict(name="tiny", width=8)
    method = Method.from_config(dict(section, backbone=tiny), num_classes=3)
    params, variables = variable_shapes(method)
    names = torch_names({"params": params, **variables}, method.backbone)
    heads = {path: name for path, name in names.items() if "/backbone/" not in path}
    assert heads
    assert not [one for one in (*heads, *heads.values()) if not re.fullmatch(HEADS, one)]


def test_a_part_is_advised_where_it_fits(shapes, arrays, tmp_path: Path):
    named: dict[str, Any] = {}
    for part in ("encoder_q", "encoder_k"):
        named |= {f"module.{part}.{name}": array for name, array in arrays.items()}
    named["module.queue"] = np.ones((2, 3))
    path = saved(tmp_path / "moco.npz", named)
    with pytest.raises(UserError, match=r"take one of its networks, FILE,part=encoder_k$") as error:
        check_backbone(path, CAM)
    assert "\n" not in str(error.value)
    check_backbone(path, CAM, "encoder_q")
    with pytest.raises(UserError, match="use the file of this network, or settings that") as error:
        check_backbone(path, Cam(num_classes=3, backbone=Tiny(width=16)), "encoder_q")
    del named["module.encoder_q.stem.weight"]
    with pytest.raises(UserError, match=r"1 missing: stem\.weight: use the file of this"):
        check_backbone(saved(path, named), CAM, "encoder_q")


def test_layers_of_a_backbone_are_not_taken_for_heads(tmp_path: Path, monkeypatch):
    """VGG16 without its fully connected layers would start with random ones."""
    monkeypatch.setattr("wsss_jax.models.vgg16.LEVELS", ((4, 1), (4, 1), (4, 1), (8, 1), (8, 1)))
    whole, features = (Vgg16(fc_features=width) for width in (16, 0))
    alone, convolutions = (Cam(num_classes=3, backbone=one) for one in (whole, features))
    params, _ = variable_shapes(convolutions)
    path = saved(tmp_path / "features.npz", drawn_arrays({"params": params}, features, seed=0))
    check_backbone(path, convolutions)
    with pytest.raises(UserError, match=r"4 missing: fc6\.bias, .* inspect` finds for this one"):
        check_backbone(path, alone)
    params, _ = variable_shapes(alone)
    path = saved(tmp_path / "whole.npz", drawn_arrays({"params": params}, whole, seed=0))
    for method in (alone, convolutions):
        check_backbone(path, method)


def test_half_precision_is_read_as_its_float32(shapes, arrays):
    for dtype in (np.float16, ml_dtypes.bfloat16):
        halves = {name: array.astype(dtype) for name, array in arrays.items()}
        result = import_arrays(shapes, halves, backbone=TINY)
        scale = result["params"]["backbone"]["layer_3"]["norm"]["scale"]
        np.testing.assert_array_equal(scale, halves["layer_3.norm.weight"].astype(np.float32))
        halves["layer_3.norm.weight"][0] = np.nan
        with pytest.raises(UserError, match=r"layer_3\.norm\.weight \(expected finite"):
            import_arrays(shapes, halves, backbone=TINY)


def test_mobilenet_file(shared):
    model = MobileNetV2()
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes: Any = jax.eval_shape(model.init, jax.random.key(0), x)
    path = shared / "data" / "weights" / "mobilenet_v2_imagenet.npz"
    wrapped = {name: {"backbone": tree} for name, tree in shapes.items()}
    params, others = import_backbone(
        path, model, wrapped["params"], {"batch_stats": wrapped["batch_stats"]}
    )
    names = torch_names({"params": params, **others}, model)
    assert names["params/backbone/features_4/conv_1_0/kernel"] == "features.4.conv.1.0.weight"
    kernel = read_checkpoint(path).arrays["features.4.conv.1.0.weight"]
    np.testing.assert_array_equal(
        params["backbone"]["features_4"]["conv_1_0"]["kernel"][:, :, 0],
        kernel[:, 0].transpose(1, 2, 0),
    )


def test_a_run_with_clusters_gives_its_backbone(shapes, tmp_path: Path):
    """LPCAM's variables have a collection of their own, which no other network has."""
    section = dict(name="lpcam", backbone=dict(name="tiny", width=8))
    params, variables = variable_shapes(Method.from_config(section, num_classes=3))
    filled = jax.tree.map(lambda like: np.ones(like.shape, np.float32), (params, variables))
    save_weights(tmp_path / "weights.npz", *filled)
    loaded, _ = import_backbone(tmp_path / "weights.npz", TINY, shapes["params"], {})
    assert (np.asarray(loaded["backbone"]["layer_3"]["norm"]["scale"]) == 1).all()
