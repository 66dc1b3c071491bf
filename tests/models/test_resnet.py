"""ResNet-50/101: sizes, strides, torchvision's names, padding; the published CAM of IRNet."""

import re
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.reference.golden_irn import drawn_as_published
from tests.reference.golden_weights import drawn_arrays
from wsss_jax.methods.cam import Cam
from wsss_jax.models import resnet
from wsss_jax.models.resnet import ResNet
from wsss_jax.weights.import_weights import import_backbone, torch_names

CLASSIFIER = 2048 * 1000 + 1000
# Programs run once: not worth optimizing.
QUICK: Any = {"xla_backend_optimization_level": 0}


def shapes(model: ResNet, height: int = 64, width: int = 64) -> Any:
    """Shapes of (taps, variables)."""
    x = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), x)


@pytest.mark.parametrize(("depth", "count"), [(50, 25_557_032), (101, 44_549_160)])
def test_parameters_are_torchvisions(depth: Literal[50, 101], count: int):
    _, variables = shapes(ResNet(depth))
    assert sum(p.size for p in jax.tree.leaves(variables["params"])) + CLASSIFIER == count
    names = torch_names({c: {"backbone": t} for c, t in variables.items()}, ResNet())
    assert len(names) == {50: 53 * 5, 101: 104 * 5}[depth]
    assert {
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.running_var",
        f"layer3.{resnet.BLOCKS[depth][2] - 1}.bn3.bias",
        "layer4.2.conv2.weight",
    } <= set(names.values())


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(64, 96), (65, 33), (1, 7)])
def test_maps_have_the_output_stride(stride: Literal[8, 16, 32], size: tuple[int, int]):
    def at(step: int) -> tuple[int, int]:
        return -(-size[0] // step), -(-size[1] // step)

    model = ResNet(output_stride=stride)
    taps, _ = shapes(model, *size)
    fifth = min(stride, 16)
    strides = {"conv2": 4, "conv3": 4, "conv4": 8, "conv5": fifth, "conv6": stride}
    assert model.tap_strides == strides
    assert {name: tap.shape[1:] for name, tap in taps.items()} == {
        "conv2": (*at(4), 64),
        "conv3": (*at(4), 256),
        "conv4": (*at(8), 512),
        "conv5": (*at(fifth), 1024),
        "conv6": (*at(stride), 2048),
    }


def test_dilations(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[str, int, int]] = []
    call = resnet.Bottleneck.__call__

    def note(self: Any, x: Any, valid: Any) -> Any:
        seen.append((self.name, self.stride, self.dilation))
        return call(self, x, valid)

    monkeypatch.setattr(resnet.Bottleneck, "__call__", note)

    def of(**fields: Any) -> list[tuple[int, int]]:
        seen.clear()
        shapes(ResNet(**fields))
        return [(s, d) for name, s, d in seen if name in ("layer3_0", "layer3_1", "layer4_0")] + [
            seen[-1][1:]
        ]

    assert of() == [(2, 1), (1, 1), (1, 1), (1, 1)]
    assert of(dilated=True) == [(2, 1), (1, 1), (1, 1), (1, 2)]
    assert of(dilated=True, output_stride=8) == [(1, 1), (1, 2), (1, 2), (1, 4)]
    assert of(dilated=True, output_stride=32) == [(2, 1), (1, 1), (2, 1), (1, 1)]


def test_what_learns():
    _, variables = shapes(ResNet())
    paths = traverse_util.flatten_dict({"backbone": variables["params"]}, sep="/")

    def trained(**fields: Any) -> set[str]:
        rules = ResNet(**fields).frozen()
        return {p.split("/")[1][:6] for p in paths if not any(re.match(r, p) for r in rules)}

    def norms(**fields: Any) -> bool:
        rules = ResNet(**fields).frozen()
        return not any(re.match(r, "backbone/layer4_0/downsample_1/scale") for r in rules)

    assert trained() == {"layer2", "layer3", "layer4"}
    assert trained(frozen_layers=2) == {"layer3", "layer4"}
    assert trained(frozen_layers=0) == {"layer1", "layer2", "layer3", "layer4"}
    everything = trained(frozen_layers=-1, bn_momentum=0.1)
    assert everything == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    assert not norms() and norms(bn_momentum=3e-4)


def test_a_torchvision_file_is_imported_without_its_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(resnet.BLOCKS, 50, (1, 1, 1, 1))
    _, found = shapes(ResNet())
    wrapped = {c: {"backbone": tree} for c, tree in found.items()}
    arrays = drawn_arrays(wrapped, ResNet(), seed=0)
    assert "layer4.0.downsample.1.running_mean" in arrays
    more = {"fc.weight": np.zeros((1000, 2048)), "fc.bias": np.zeros(1000)}
    more["layer1.0.bn1.num_batches_tracked"] = np.array(7)
    np.savez(tmp_path / "resnet50.npz", allow_pickle=False, **arrays, **more)
    params, others = import_backbone(
        tmp_path / "resnet50.npz",
        ResNet(),
        wrapped["params"],
        {"batch_stats": wrapped["batch_stats"]},
    )
    kernel = arrays["layer2.0.downsample.0.weight"]
    np.testing.assert_array_equal(
        params["backbone"]["layer2_0"]["downsample_0"]["kernel"][0, 0], kernel[:, :, 0, 0].T
    )
    stats = others["batch_stats"]["backbone"]["layer3_0"]["bn2"]["var"]
    np.testing.assert_array_equal(stats, arrays["layer3.0.bn2.running_var"])


@pytest.mark.slow
def test_golden_cam(shared):
    golden = np.load(shared / "golden" / "irn.npz")
    method = Cam(num_classes=20, backbone=ResNet(), dropout=0.0)
    variables = drawn_as_published(method, int(golden["seed"]), {"fc8.weight": "classifier.weight"})
    image = jnp.asarray(golden["image"])
    pair = jnp.concatenate([image, image[:, :, ::-1]])
    program = jax.jit(method.model().apply).lower(variables, pair).compile(compiler_options=QUICK)
    maps: Any = program(variables, pair)
    cam = jax.nn.relu(maps)
    cam = cam[0] + cam[1, :, ::-1]
    np.testing.assert_allclose(cam, golden["cam"], rtol=1e-4, atol=1e-4 * golden["cam"].max())
