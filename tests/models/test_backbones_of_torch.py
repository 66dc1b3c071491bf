"""Backbones that PyTorch programs have too: the same maps from the same weights, by their names."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.reference.drawing import SEED, draw, image
from tests.toys.compiler import QUICK
from tests.toys.interpreters import other_python
from wsss_jax.errors import UserError
from wsss_jax.models import convnext, mobilenet_v2, resnet, vgg16
from wsss_jax.models.base import Backbone
from wsss_jax.models.convnext import ConvNeXt
from wsss_jax.models.inverted_residual import Group
from wsss_jax.models.mobilenet_v2 import MobileNetV2
from wsss_jax.models.resnet import ResNet
from wsss_jax.models.vgg16 import Vgg16
from wsss_jax.weights.import_weights import import_arrays

REPOSITORY = Path(__file__).resolve().parents[2]


def wrapped_shapes(model: Any) -> Any:
    """Shapes of a backbone's variables, as in a network."""
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    shapes: Any = jax.eval_shape(model.init, jax.random.key(0), x)
    return {collection: {"backbone": tree} for collection, tree in shapes.items()}


def imported(model: Backbone, arrays: Mapping[str, np.ndarray]) -> Any:
    """The variables of a backbone from a file's arrays, none of which may be left over."""
    found = import_arrays(wrapped_shapes(model), arrays, backbone=model)
    return {collection: tree["backbone"] for collection, tree in found.items()}


def check(model: Any, expected: Mapping[str, np.ndarray], unused: tuple[str, ...] = ()) -> None:
    """Our maps of the drawn image with the drawn weights are those of `expected`.

    It may have only the first channels. `unused` begin the names of arrays that we do not have.
    """
    shapes = json.loads(str(expected["shapes"]))
    arrays = {n: draw(n, tuple(s), SEED) for n, s in shapes.items() if not n.startswith(unused)}
    variables, x = imported(model, arrays), image([int(side) for side in expected["size"]])
    taps: Any = (
        jax.jit(model.apply).lower(variables, x).compile(compiler_options=QUICK)(variables, x)
    )
    assert set(taps) == {name for name in expected if name.startswith("conv")}
    for name, tap in taps.items():
        theirs = expected[name]
        ours = np.asarray(tap)[..., : theirs.shape[-1]]
        largest = np.abs(theirs).max()
        assert largest > 0.01, name
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * largest, err_msg=name)


TOYS: dict[str, Any] = {
    "resnet_v15": ResNet(output_stride=8, dilated=True),
    "resnet_v1": ResNet(output_stride=32, stride_on="1x1"),
    "vgg16": Vgg16(pixels="caffe", fc_features=16, fc_dilation=4),
    "vgg16_bn": Vgg16(output_stride=16, batch_norm=True, pool_size=2, fc_features=0),
    "mobilenet_v2": MobileNetV2(form="torchvision", output_stride=32, taps=(5, 7)),
    "convnext": ConvNeXt(output_stride=32),
    "convnext_8": ConvNeXt(output_stride=8),
}


@pytest.mark.parametrize("name", TOYS)
def test_golden_maps_of_few_or_narrow_layers(
    name: str, golden: Path, monkeypatch: pytest.MonkeyPatch
):
    levels = tuple(zip((4, 4, 6, 8, 8), (2, 2, 3, 3, 3), strict=True))
    monkeypatch.setitem(resnet.BLOCKS, 50, (1, 1, 2 if name == "resnet_v15" else 1, 1))
    monkeypatch.setattr(vgg16, "LEVELS", levels)
    groups = ((1, 8, 1, 1), (6, 8, 2, 2), (6, 16, 2, 2), (6, 16, 1, 2), (6, 24, 1, 1))
    monkeypatch.setattr(mobilenet_v2, "_GROUPS", tuple(Group(*group) for group in groups))
    blocks = (1, 1, 2, 1) if name == "convnext" else (1, 1, 1, 2)
    monkeypatch.setitem(convnext.BLOCKS, "tiny", blocks)
    monkeypatch.setattr(convnext, "WIDTHS", (8, 12, 16, 24))
    with np.load(golden / f"backbone_{name}.npz") as file:
        check(TOYS[name], dict(file), unused=("fc.", "head.fc."))


WHOLE: dict[str, tuple[Any, dict[str, Any]]] = {
    "resnet50": (
        ResNet(output_stride=16, dilated=True),
        dict(network="resnet", blocks=[3, 4, 6, 3], stride=16),
    ),
    "resnet101": (ResNet(101, output_stride=32), dict(network="resnet", blocks=[3, 4, 23, 3])),
    "vgg16": (
        Vgg16(output_stride=16, pool_size=2, fc_features=0),
        dict(network="torchvision_vgg16", widths=[64, 128, 256, 512, 512], size=[64, 96]),
    ),
    "timm_mobilenet_v2": (
        MobileNetV2(form="torchvision", output_stride=32),
        dict(network="timm_mobilenet_v2", size=[65, 98]),
    ),
    "convnext_tiny": (
        ConvNeXt(output_stride=32),
        dict(network="torchvision_convnext", size=[64, 96]),
    ),
    "convnext_small": (
        ConvNeXt(size="small", output_stride=16),
        dict(
            network="convnext",
            blocks=[3, 3, 27, 3],
            widths=[96, 192, 384, 768],
            stride=16,
            size=[64, 96],
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_maps_of_whole_networks(name: str, tmp_path: Path):
    python = other_python("WSSS_TORCH_PYTHON", "timm")
    model, asked = WHOLE[name]
    out = tmp_path / "maps.npz"
    asked = dict(size=[65, 97], weights=str(tmp_path / "weights.pth")) | asked
    command = [python, "-m", "tests.reference.torch_backbones", str(out), json.dumps(asked)]
    subprocess.run(command, check=True, cwd=REPOSITORY)
    with np.load(out) as file:
        unused = ("fc.", "head.fc.", "classifier.2.", "classifier.weight", "classifier.bias")
        check(model, dict(file), unused=unused)


def test_fully_connected_layers_of_vgg16_are_decimated():
    """Every fourth channel; of 7×7 rows and columns the first, the fourth and the last."""
    rng = np.random.default_rng(0)
    wide = {
        "classifier.0.weight": rng.normal(size=(64, 512 * 49)),
        "classifier.0.bias": np.arange(64),
    }
    wide |= {"classifier.3.weight": rng.normal(size=(64, 64)), "classifier.3.bias": np.arange(64)}
    found = Vgg16(fc_features=16).foreign_arrays(wide)
    assert {name: array.shape for name, array in found.items()} == {
        "fc6.weight": (16, 512, 3, 3),
        "fc6.bias": (16,),
        "fc7.weight": (16, 16, 1, 1),
        "fc7.bias": (16,),
    }
    kernel = wide["classifier.0.weight"].reshape(64, 512, 7, 7)
    assert found["fc6.weight"][5, 9, 1, 2] == kernel[20, 9, 3, 6]
    assert found["fc7.weight"][5, 3, 0, 0] == wide["classifier.3.weight"][20, 12]
    np.testing.assert_array_equal(found["fc6.bias"], np.arange(0, 64, 4))
    assert not Vgg16(fc_features=0).foreign_arrays(wide)
    timm = {
        "pre_logits.fc1.weight": kernel,
        "pre_logits.fc1.bias": wide["classifier.0.bias"],
        "pre_logits.fc2.weight": wide["classifier.3.weight"][:, :, None, None],
        "pre_logits.fc2.bias": wide["classifier.3.bias"],
    }
    again = Vgg16(fc_features=16).foreign_arrays(timm)
    assert again.keys() == found.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(again[name], array)


def test_layers_that_are_not_vgg16s_keep_their_names():
    """ConvNeXt has a norm and FCN a convolution of these names."""
    for shape in ((768,), (512, 2048, 3, 3), (64, 512 * 49)):
        arrays = {"classifier.0.weight": np.zeros(shape, np.int8), "classifier.0.bias": np.zeros(9)}
        assert dict(Vgg16().foreign_arrays(arrays)) == arrays


def test_weights_of_mobilenet_v2_for_another_form_are_refused():
    arrays = {"conv_stem.weight": np.zeros((32, 3, 3, 3)), "blocks.0.1.conv_dw.weight": np.zeros(1)}
    with pytest.raises(UserError, match=r"for form='tensorflow', found conv_stem.*'torchvision'"):
        MobileNetV2().foreign_arrays(arrays)
    found = MobileNetV2(form="torchvision").foreign_arrays(arrays)
    # There is one block in the first group; a second one is of another network.
    assert set(found) == {"features.0.0.weight", "blocks.0.1.conv_dw.weight"}


@pytest.mark.parametrize(("pixels", "name"), [("torchvision", "conv1_1"), ("caffe", "features.0")])
def test_weights_of_vgg16_for_other_pixels_are_refused(pixels: Any, name: str):
    other = "caffe" if pixels == "torchvision" else "torchvision"
    message = f"weights of vgg16 for pixels='{pixels}', found {name}.weight.*pixels='{other}'"
    with pytest.raises(UserError, match=message):
        Vgg16(pixels=pixels).foreign_arrays({f"{name}.weight": np.zeros((64, 3, 3, 3))})
