"""Feature maps of PyTorch's backbones with drawn weights, to compare ours with.

    PYTHON -m tests.reference.torch_backbones OUT.npz '{"network": "resnet50", "size": [65, 97]}'

PYTHON is an interpreter with torch, torchvision and timm. The file holds the maps [1, h', w', c]
of `drawing.image` under the names of our taps, its ``size``, and ``shapes``, those of the state
dict by name, as JSON.
With ``"weights": "FILE.pth"``, the state dict is saved too.

With ``--golden FOLDER`` instead, it writes the small files of tests/golden.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]
import torchvision  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from tests.reference.drawing import SEED, draw, image

GOLDEN: dict[str, dict[str, Any]] = {
    "resnet_v15": dict(network="resnet", blocks=[1, 1, 2, 1], size=[33, 47], stride=8),
    "resnet_v1": dict(network="resnet", blocks=[1, 1, 1, 1], size=[33, 47], stride=32, first=True),
    "vgg16": dict(network="vgg16", widths=[4, 4, 6, 8, 8], size=[33, 47]),
    "vgg16_bn": dict(network="torchvision_vgg16", widths=[4, 4, 6, 8, 8], size=[32, 48], norm=True),
    "mobilenet_v2": dict(
        network="mobilenet_v2",
        groups=[[1, 8, 1, 1], [6, 8, 2, 2], [6, 16, 2, 2], [6, 16, 1, 2], [6, 24, 1, 1]],
        taps=[3, 5, 7],
        size=[33, 46],
    ),
    "convnext": dict(
        network="convnext", blocks=[1, 1, 2, 1], widths=[8, 12, 16, 24], size=[32, 64]
    ),
    "convnext_8": dict(
        network="convnext", blocks=[1, 1, 1, 2], widths=[8, 12, 16, 24], size=[32, 64], stride=8
    ),
}
"""The networks of tests/golden: real blocks, but few of them, or narrow ones."""

Taps = dict[str, torch.Tensor]


def resnet(
    blocks: list[int], stride: int = 32, first: bool = False
) -> tuple[nn.Module, Callable[[torch.Tensor], Taps]]:
    """torchvision's ResNet, with the stride of a block on its first layer if `first`."""
    dilate = [False, stride < 16, stride < 32]
    bottleneck = torchvision.models.resnet.Bottleneck
    net = torchvision.models.ResNet(bottleneck, blocks, replace_stride_with_dilation=dilate)
    if first:
        for module in net.modules():
            if isinstance(module, bottleneck):
                module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)

    def taps(x: torch.Tensor) -> Taps:
        found = {"conv2": net.maxpool(net.relu(net.bn1(net.conv1(x))))}
        for number in range(1, 5):
            previous = found[f"conv{number + 1}"]
            found[f"conv{number + 2}"] = getattr(net, f"layer{number}")(previous)
        return found

    return net, taps


def torchvision_vgg16(
    widths: list[int], norm: bool = False
) -> tuple[nn.Module, Callable[[torch.Tensor], Taps]]:
    """torchvision's VGG16 without its last pool and its classifier."""
    plan: list[int | str] = []
    for width, layers in zip(widths, (2, 2, 3, 3, 3), strict=True):
        plan += [*[width] * layers, "M"]
    features = torchvision.models.vgg.make_layers(plan, batch_norm=norm)
    net = torchvision.models.VGG(features, num_classes=2, init_weights=False)
    del net.classifier

    def taps(x: torch.Tensor) -> Taps:
        found = {}
        for layer in net.features:
            if isinstance(layer, nn.MaxPool2d):
                found[f"conv{len(found) + 1}"] = x
            x = layer(x)
        found["conv6"] = found["conv5"]
        return {name: found[name] for name in ("conv3", "conv4", "conv5", "conv6")}

    return net, taps


def vgg16(widths: list[int], dilation: int = 4) -> tuple[nn.Module, Callable[[torch.Tensor], Taps]]:
    """VGG16 with a large field of view and the layers' names in Caffe, blue first."""
    net, into = nn.Module(), 3
    levels: list[list[str]] = []
    for level, (width, layers) in enumerate(zip(widths, (2, 2, 3, 3, 3), strict=True), 1):
        rate = 2 if level == 5 else 1
        levels.append([f"conv{level}_{number}" for number in range(1, layers + 1)])
        for name in levels[-1]:
            net.add_module(name, nn.Conv2d(into, width, 3, padding=rate, dilation=rate))
            into = width
    net.add_module("fc6", nn.Conv2d(into, 16, 3, padding=dilation, dilation=dilation))
    net.add_module("fc7", nn.Conv2d(16, 16, 1))

    def taps(x: torch.Tensor) -> Taps:
        x, found = x.flip(1), {}
        for level, names in enumerate(levels, 1):
            if level > 1:
                step = 2 if level < 5 else 1
                x = nn.functional.max_pool2d(x, 3, step, padding=1)
            for name in names:
                x = net.get_submodule(name)(x).relu()
            found[f"conv{level}"] = x
        for name in ("fc6", "fc7"):
            x = net.get_submodule(name)(x).relu()
        found["conv6"] = x
        return {name: found[name] for name in ("conv3", "conv4", "conv5", "conv6")}

    return net, taps


def mobilenet_v2(
    groups: list[list[int]], taps: list[int]
) -> tuple[nn.Module, Callable[[torch.Tensor], Taps]]:
    """torchvision's MobileNetV2 without its classifier; `taps` are blocks, counted from 1."""
    net = torchvision.models.MobileNetV2(inverted_residual_setting=groups)
    del net.classifier

    def maps(x: torch.Tensor) -> Taps:
        found = {}
        for number, layer in enumerate(net.features):
            x = layer(x)
            if number in taps:
                found[f"conv{3 + taps.index(number)}"] = x
        return {**found, "conv6": x}

    return net, maps


def timm_mobilenet_v2() -> tuple[nn.Module, Callable[[torch.Tensor], Taps]]:
    """timm's MobileNetV2, with the maps of the blocks 3, 5 and 12, counted from 1."""
    net = timm.create_model("mobilenetv2_100")

    def maps(x: torch.Tensor) -> Taps:
        found, x = {}, net.bn1(net.conv_stem(x))
        for number, block in enumerate((one for group in net.blocks for one in group), 1):
            x = block(x)
            if number in (3, 5, 12):
                found[f"conv{3 + len(found)}"] = x
        return {**found, "conv6": net.bn2(net.conv_head(x))}

    return net, maps


def convnext(
    blocks: list[int], widths: list[int], stride: int = 32
) -> tuple[nn.Module, Callable[[torch.Tensor], Taps]]:
    """timm's ConvNeXt, whose last map is normalized pixel by pixel here."""
    net = timm.models.convnext.ConvNeXt(depths=blocks, dims=widths, output_stride=stride)

    def taps(x: torch.Tensor) -> Taps:
        found = {}
        x = net.stem(x)
        for number, stage in enumerate(net.stages, 3):
            found[f"conv{number}"] = x = stage(x)
        found["conv6"] = net.head.norm(x)
        return found

    return net, taps


def torchvision_convnext() -> tuple[nn.Module, Callable[[torch.Tensor], Taps]]:
    """torchvision's ConvNeXt-T, whose last map is normalized pixel by pixel here."""
    net = torchvision.models.convnext_tiny(weights=None)

    def taps(x: torch.Tensor) -> Taps:
        found = {}
        for number, stage in enumerate(net.features):
            x = stage(x)
            if number % 2:
                found[f"conv{3 + number // 2}"] = x
        found["conv6"] = net.classifier[0](x)
        return found

    return net, taps


BUILD: dict[str, Callable[..., tuple[nn.Module, Callable[[torch.Tensor], Taps]]]] = {
    one.__name__: one
    for one in (
        *(resnet, torchvision_vgg16, vgg16, mobilenet_v2),
        *(convnext, torchvision_convnext, timm_mobilenet_v2),
    )
}


def features(
    network: str, size: list[int], weights: str = "", **options: Any
) -> dict[str, np.ndarray]:
    """The arrays of the module's docstring."""
    net, taps = BUILD[network](**options)
    net.eval()
    state = {
        name: torch.from_numpy(draw(name, tuple(value.shape), SEED))
        for name, value in net.state_dict().items()
        if value.is_floating_point()
    }
    net.load_state_dict(state, strict=False)
    if weights:
        torch.save(net.state_dict(), weights)
    with torch.inference_mode():
        found = taps(torch.from_numpy(image(size).transpose(0, 3, 1, 2).copy()))
    maps = {name: one.numpy().transpose(0, 2, 3, 1) for name, one in found.items()}
    shapes = {name: list(one.shape) for name, one in state.items()}
    return {"size": np.array(size), "shapes": np.array(json.dumps(shapes)), **maps}


def golden(folder: Path) -> None:
    """Writes the maps of `GOLDEN`, of which the first eight channels are kept."""
    for name, asked in GOLDEN.items():
        arrays = features(**asked)
        few = {n: a[..., :8] if n.startswith("conv") else a for n, a in arrays.items()}
        np.savez_compressed(folder / f"backbone_{name}.npz", allow_pickle=False, **few)


if __name__ == "__main__":
    if sys.argv[1] == "--golden":
        golden(Path(sys.argv[2]))
    else:
        np.savez(sys.argv[1], allow_pickle=False, **features(**json.loads(sys.argv[2])))
