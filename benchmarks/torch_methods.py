"""Losses of `cam` and `seam` on the PyTorch twins of `torch_networks`; for speed comparison only.

Shapes are [b, c, h, w]; labels are [b, c].
"""

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

from benchmarks.torch_networks import conv, resize

EPSILON = 1e-5


class Classifier(nn.Module):
    """Backbone and the classifying 1×1 convolution; batch norm always uses stored statistics.

    The constructors here name the fields of the package's methods that they implement; none has a
    default of its own.
    """

    def __init__(self, num_classes: int, backbone: nn.Module, dropout: float):
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout2d(dropout)
        self.fc8 = conv(self.backbone.channels, num_classes)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(self.backbone, name)).view(1, 3, 1, 1)
            self.register_buffer(f"pixel_{name}", values, persistent=False)

    def train(self, mode: bool = True) -> "Classifier":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def normalize(self, images: Tensor, valid: Tensor) -> Tensor:
        """uint8 images to the network's input, zero where padded."""
        return (images.float() - self.pixel_mean) / self.pixel_std * valid[:, None]


class Cam(Classifier):
    def loss(self, images: Tensor, valid: Tensor, labels: Tensor) -> Tensor:
        """Multilabel soft-margin loss of the maps' averages."""
        cam = self.fc8(self.dropout(self.backbone(self.normalize(images, valid))[-1]))
        return F.multilabel_soft_margin_loss(cam.float().mean((2, 3)), labels)

    def maps(self, x: Tensor) -> Tensor:
        """Maps of the classes at the network's stride."""
        return F.relu(self.fc8(self.backbone(x)[-1]))


class Seam(Classifier):
    def __init__(
        self,
        num_classes: int,
        backbone: nn.Module,
        dropout: float,
        small_scale: float,
        topk: float,
        er_weight: float,
        ecr_weight: float,
    ):
        super().__init__(num_classes + 1, backbone, dropout)
        self.small_scale, self.topk = small_scale, topk
        self.er_weight, self.ecr_weight = er_weight, ecr_weight
        self.f8_3 = conv(self.backbone.sides[0], 64)
        self.f8_4 = conv(self.backbone.sides[1], 128)
        self.f9 = conv(195, 192)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps and revised maps at the size of `x`."""
        conv4, conv5, final = self.backbone(x)
        cam = self.fc8(self.dropout(final)).float()
        size, full = tuple(cam.shape[2:]), tuple(x.shape[2:])
        sides = [
            F.relu(layer(resize(tap.detach(), size)), inplace=True)
            for layer, tap in ((self.f8_3, conv4), (self.f8_4, conv5))
        ]
        features = self.f9(torch.cat([resize(x, size), *sides], 1)).float()
        revised = pixel_correlation(features, pixel_correlation_input(cam.detach()))
        return resize(cam, full), resize(revised, full)

    def maps(self, x: Tensor) -> Tensor:
        """Revised maps of the classes at the size of `x`."""
        return self(x)[1][:, 1:]

    def loss(self, images: Tensor, valid: Tensor, labels: Tensor) -> Tensor:
        """Classification, equivariance and cross-supervision over two scales."""
        large = self.normalize(images, valid)
        size = (int(large.shape[2] * self.small_scale), int(large.shape[3] * self.small_scale))
        cam1, revised1 = self(large)
        cam2, revised2 = self(resize(large, size))
        present = F.pad(labels, (1, 0), value=1.0)[:, :, None, None]
        p1, q1 = (resize(min_max_norm(maps), size) * present for maps in (cam1, revised1))
        p2, q2 = (min_max_norm(maps) * present for maps in (cam2, revised2))
        classification = sum(
            F.multilabel_soft_margin_loss(cam[:, 1:].mean((2, 3)), labels)
            + smallest_response((revised * present)[:, 1:])
            for cam, revised in ((cam1, revised1), (cam2, revised2))
        )
        equivariance = (p1[:, 1:] - p2[:, 1:]).abs().mean()
        crossed = hardest_l1(supervision(p2), q1, self.topk)
        crossed = crossed + hardest_l1(supervision(p1), q2, self.topk)
        return classification / 2 + self.er_weight * equivariance + self.ecr_weight * crossed


def with_background(foreground: Tensor) -> Tensor:
    return torch.cat([1 - foreground.amax(1, keepdim=True), foreground], 1)


def winner_only(maps: Tensor) -> Tensor:
    foreground = maps[:, 1:]
    best = foreground.amax(1, keepdim=True)
    return torch.cat([maps[:, :1], foreground.masked_fill(foreground < best, 0)], 1)


def pixel_correlation_input(cam: Tensor) -> Tensor:
    cam = F.relu(cam[:, 1:])
    cam = F.relu(cam - EPSILON) / (cam.amax((2, 3), keepdim=True) + EPSILON)
    return winner_only(with_background(cam))


def pixel_correlation(features: Tensor, cam: Tensor) -> Tensor:
    """Maps averaged over the pixels of similar features."""
    flat = features.flatten(2)
    flat = flat / (flat.norm(dim=1, keepdim=True) + EPSILON)
    affinity = F.relu(flat.transpose(1, 2) @ flat, inplace=True)
    affinity = affinity / (affinity.sum(1, keepdim=True) + EPSILON)
    return (cam.flatten(2) @ affinity).view_as(cam)


def min_max_norm(maps: Tensor) -> Tensor:
    maps = F.relu(maps)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return F.relu(maps - low - EPSILON) / (high - low + EPSILON)


def supervision(maps: Tensor) -> Tensor:
    return winner_only(with_background(maps.detach()[:, 1:]))


def hardest_l1(target: Tensor, prediction: Tensor, fraction: float) -> Tensor:
    difference = (target - prediction).abs().flatten(1)
    count = max(int(difference.shape[1] * fraction), 1)
    return difference.topk(count, sorted=False).values.mean()


def smallest_response(maps: Tensor, fraction: float = 0.25) -> Tensor:
    response = maps.amax(1).flatten(1)
    count = max(int(response.shape[1] * fraction), 1)
    return F.relu(response.topk(count, largest=False, sorted=False).values).mean()


METHODS = {"cam": Cam, "seam": Seam}
