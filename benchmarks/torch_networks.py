"""PyTorch twins of the training steps of `cam` and `seam`, to compare speed with; nothing else.

Same mathematics, parameter names of the published weights, channels-last memory. PyTorch is no
dependency of this package: run these under an environment of their own (docs/benchmarks.md).

Shapes are [b, c, h, w].
"""

from typing import Any

import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]


def conv(inputs: int, outputs: int, size: int = 1, **options: Any) -> nn.Conv2d:
    """Convolution without bias, padded to keep the size at stride 1."""
    options.setdefault("padding", options.get("dilation", 1) * (size // 2))
    return nn.Conv2d(inputs, outputs, size, bias=False, **options)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners aligned."""
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


class SamePadding(nn.Module):
    """What a stride-2 layer of TensorFlow adds: one row and column at the end (two if odd)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 1 + x.shape[3] % 2, 0, 1 + x.shape[2] % 2))


def spatial_conv(inputs: int, outputs: int, stride: int, dilation: int, groups: int) -> nn.Module:
    """3×3 convolution with TensorFlow's padding; its weight's name stays that of a convolution."""
    if stride == 1:
        return conv(inputs, outputs, 3, dilation=dilation, groups=groups)
    layer = conv(inputs, outputs, 3, stride=stride, groups=groups, padding=0)
    pad = SamePadding()
    layer.register_forward_pre_hook(lambda module, args: (pad(args[0]),))
    return layer


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, dilation: int):
        super().__init__()
        width = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(nn.Sequential(conv(inputs, width), nn.BatchNorm2d(width), nn.ReLU6(True)))
        depthwise = spatial_conv(width, width, stride, dilation, width)
        layers.append(nn.Sequential(depthwise, nn.BatchNorm2d(width), nn.ReLU6(True)))
        layers += [conv(width, outputs), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """Dilated MobileNetV2 with torchvision's parameter names."""

    groups = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    channels = 1280
    mean = (127.5, 127.5, 127.5)
    std = (127.5, 127.5, 127.5)

    def __init__(self, output_stride: int, taps: tuple[int, int]):
        super().__init__()
        self.taps = tuple(taps)
        stem = spatial_conv(3, 32, 2, 1, 1)
        layers: list[nn.Module] = [nn.Sequential(stem, nn.BatchNorm2d(32), nn.ReLU6(True))]
        inputs, stride, dilation, widths = 32, 2, 1, [32]
        for expansion, outputs, blocks, group_stride in self.groups:
            for position in range(blocks):
                step, rate = group_stride if position == 0 else 1, dilation
                if stride * step > output_stride:
                    step, dilation = 1, dilation * group_stride
                stride *= step
                layers.append(InvertedResidual(inputs, outputs, expansion, step, rate))
                inputs = outputs
                widths.append(outputs)
        self.sides = tuple(widths[tap] for tap in self.taps)
        last = nn.Sequential(conv(inputs, 1280), nn.BatchNorm2d(1280), nn.ReLU6(True))
        self.features = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tapped = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                tapped.append(x)
        return tapped[0], tapped[1], x


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, each after batch norm and ReLU."""

    def __init__(
        self, inputs: int, middle: int, outputs: int, stride: int, dilations: tuple[int, int]
    ):
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = conv(inputs, middle, 3, stride=stride, dilation=dilations[0])
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.conv_branch2b1 = conv(middle, outputs, 3, dilation=dilations[1])
        if inputs != outputs or stride != 1:
            self.conv_branch1 = conv(inputs, outputs, stride=stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        active = F.relu(self.bn_branch2a(x), inplace=True)
        y = F.relu(self.bn_branch2b1(self.conv_branch2a(active)), inplace=True)
        shortcut = self.conv_branch1(active) if hasattr(self, "conv_branch1") else x
        return shortcut + self.conv_branch2b1(y), active


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution with dropout of channels before the last two."""

    def __init__(self, inputs: int, outputs: int, dropout: float, dilation: int = 4):
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = conv(inputs, outputs // 4)
        self.bn_branch2b1 = nn.BatchNorm2d(outputs // 4)
        self.conv_branch2b1 = conv(outputs // 4, outputs // 2, 3, dilation=dilation)
        self.bn_branch2b2 = nn.BatchNorm2d(outputs // 2)
        self.conv_branch2b2 = conv(outputs // 2, outputs)
        self.conv_branch1 = conv(inputs, outputs)
        self.drop1, self.drop2 = nn.Dropout2d(dropout), nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        active = F.relu(self.bn_branch2a(x), inplace=True)
        y = F.relu(self.bn_branch2b1(self.conv_branch2a(active)), inplace=True)
        y = self.conv_branch2b1(self.drop1(y))
        y = F.relu(self.bn_branch2b2(y), inplace=True)
        return self.conv_branch1(active) + self.conv_branch2b2(self.drop2(y)), active


class ResNet38(nn.Module):
    """The wide residual network of SSENet and SEAM, with the published parameter names."""

    blocks: tuple[tuple[str, int, int, int, int, tuple[int, int]], ...] = (
        ("b2", 64, 128, 128, 2, (1, 1)),
        *((f"b2_{i}", 128, 128, 128, 1, (1, 1)) for i in (1, 2)),
        ("b3", 128, 256, 256, 2, (1, 1)),
        *((f"b3_{i}", 256, 256, 256, 1, (1, 1)) for i in (1, 2)),
        ("b4", 256, 512, 512, 2, (1, 1)),
        *((f"b4_{i}", 512, 512, 512, 1, (1, 1)) for i in (1, 2, 3, 4, 5)),
        ("b5", 512, 512, 1024, 1, (1, 2)),
        *((f"b5_{i}", 1024, 512, 1024, 1, (2, 2)) for i in (1, 2)),
    )
    sides = (512, 1024)
    channels = 4096
    mean = (123.675, 116.28, 103.53)
    std = (58.395, 57.12, 57.375)

    def __init__(self, dropout: tuple[float, float]):
        super().__init__()
        self.conv1a = conv(3, 64, 3)
        for name, inputs, middle, outputs, stride, dilations in self.blocks:
            self.add_module(name, ResidualBlock(inputs, middle, outputs, stride, dilations))
        self.b6 = Bottleneck(1024, 2048, dropout[0])
        self.b7 = Bottleneck(2048, 4096, dropout[1])
        self.bn7 = nn.BatchNorm2d(4096)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.conv1a(x)
        conv4 = x
        for name, *_ in self.blocks:
            x, active = self.get_submodule(name)(x)
            if name == "b5":
                conv4 = active
        x, conv5 = self.b6(x)
        x, _ = self.b7(x)
        return conv4, conv5, F.relu(self.bn7(x), inplace=True)


class TorchvisionBlock(nn.Module):
    """1×1, 3×3 and 1×1 convolution, each before batch norm; the stride is on the 3×3 layer."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, project: bool):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width), nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride=stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if project:
            layer = conv(inputs, 4 * width, stride=stride)
            self.downsample = nn.Sequential(layer, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet(nn.Module):
    """ResNet-50 or ResNet-101 with torchvision's parameter names; layer4 has no stride of its own.

    Frozen layers are those of the parameters' rules, and their gradients stop by themselves.
    """

    sides = (512, 1024)
    channels = 2048
    mean = (123.675, 116.28, 103.53)
    std = (58.395, 57.12, 57.375)

    def __init__(self, depth: int, output_stride: int, dilated: bool, frozen_layers: int):
        super().__init__()
        del frozen_layers
        self.conv1, self.bn1 = conv(3, 64, 7, stride=2), nn.BatchNorm2d(64)
        inputs, stride, dilation = 64, 4, 1
        for layer, blocks in enumerate((3, 4, {50: 6, 101: 23}[depth], 3), 1):
            step, first = 1 if layer == 1 else 2, dilation
            if stride * step > output_stride:
                step, dilation = 1, dilation * (step if dilated else 1)
            stride *= step
            width = 32 << layer
            start = TorchvisionBlock(inputs, width, step, first, True)
            inputs = 4 * width
            rest = [TorchvisionBlock(inputs, width, 1, dilation, False) for _ in range(blocks - 1)]
            self.add_module(f"layer{layer}", nn.Sequential(start, *rest))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        conv4 = self.get_submodule("layer2")(self.get_submodule("layer1")(x))
        conv5 = self.get_submodule("layer3")(conv4)
        return conv4, conv5, self.get_submodule("layer4")(conv5)


BACKBONES = {"mobilenet_v2": MobileNetV2, "resnet": ResNet, "resnet38": ResNet38}
