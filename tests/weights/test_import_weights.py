"""Weights under PyTorch names: layouts, and every way a file can be wrong."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util

from tests.reference.golden_weights import drawn_arrays
from wsss_jax.errors import UserError
from wsss_jax.methods.cam import Cam
from wsss_jax.models.mobilenet_v2 import MobileNetV2
from wsss_jax.models.tiny import Tiny
from wsss_jax.models.torch_names import from_torch_layout
from wsss_jax.weights.checkpoint import read_checkpoint
from wsss_jax.weights.import_weights import (
    import_arrays,
    import_backbone,
    torch_names,
)

TINY = Tiny(width=8)


@pytest.fixture(scope="module")
def shapes() -> Any:
    """Shapes of a small network with a backbone and a head."""
    x = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    return jax.eval_shape(Cam(num_classes=3, backbone=TINY).model().init, jax.random.key(0), x)


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


def test_ignored_names_keep_their_values(shapes, arrays):
    variables = jax.tree.map(lambda a: jnp.full(a.shape, 7.0), shapes)
    arrays["classifier.weight"] = arrays.pop("fc8.weight")
    heard: list[str] = []
    result = import_arrays(
        variables, arrays, backbone=TINY, ignore=r"(fc8|classifier)\..*", log=heard.append
    )
    assert (result["params"]["fc8"]["kernel"] == 7).all()
    assert "kept as initialized: fc8.weight" in heard[0]
    assert "left out: classifier.weight" in heard[0]


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
