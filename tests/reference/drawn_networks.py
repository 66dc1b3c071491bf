"""Networks with weights drawn by chance, and their maps image by image at exact sizes."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

from tests.toys.compiler import QUICK
from wsss_jax.data.augment import resize_image
from wsss_jax.data.source import Record
from wsss_jax.files import write_json
from wsss_jax.host.upsampling import Reduced, ViewMaps
from wsss_jax.inference.multi_scale import MultiScale, NetworkMaps, ViewJob
from wsss_jax.inference.network import Network
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.stages.base import Context
from wsss_jax.weights.npz import save_weights

CLASSES = 3
FIELDS: dict[str, dict] = {
    "cam": {},
    "seam": dict(dims=(8, 8, 8)),
    "segmentation": dict(head=dict(name="large_fov", features=16, dilation=2)),
}


BACKBONES: dict[str, dict] = {
    "tiny": dict(name="tiny", width=8),
    "mobilenet_v2": dict(name="mobilenet_v2", output_stride=16),
    "small_vit": dict(name="tests.toys.small_vit", width=16),
}


class Images:
    """Noise of given sizes; image i has the classes of the bits of i, so image 0 has none."""

    classes: tuple[str, ...] = ("cat", "dog", "cow")
    digest = "images"

    def __init__(self, *sizes: tuple[int, int]):
        self.sizes = list(sizes)
        self.ids = [f"image_{i}" for i in range(len(sizes))]

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, index: int) -> np.ndarray:
        coarse = np.random.default_rng(index).integers(0, 256, (4, 4, 3)).astype(np.uint8)
        return cv2.resize(coarse, self.sizes[index][::-1], interpolation=cv2.INTER_LINEAR)

    def label(self, index: int) -> np.ndarray:
        return np.array([index >> k & 1 for k in range(CLASSES)], np.float32)

    def __getitem__(self, index: int) -> Record:
        image = np.ascontiguousarray(self.pixels(index)[..., ::-1])
        data = cv2.imencode(".png", image)[1].tobytes()
        return Record(
            id=self.ids[index],
            image=data,
            size=self.sizes[index],
            label=self.label(index),
            segmentation=None,
        )


@dataclasses.dataclass(frozen=True)
class Given(Context):
    """A context that has these images for every split."""

    images: Any = None

    def source(self, split: str) -> Any:
        return self.images


def bilinear(maps: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Maps [k, h, w] at another size."""
    for axis, length in enumerate(size, 1):
        have, position = maps.shape[axis], np.arange(length)
        if align_corners:
            at = position * ((have - 1) / max(length - 1, 1))
        else:
            at = np.clip((position + 0.5) * have / length - 0.5, 0, have - 1)
        low = np.floor(at).astype(int)
        weight = (at - low).reshape(-1, 1) if axis == 1 else at - low
        high = np.minimum(low + 1, have - 1)
        maps = np.take(maps, low, axis) * (1 - weight) + np.take(maps, high, axis) * weight
    return maps


class Trained:
    """The folder of a training stage, with weights drawn by chance."""

    def __init__(self, folder: Path, name: str, backbone: str):
        settings = BACKBONES.get(backbone, dict(name=backbone))
        description = dict(name=name, backbone=settings, **FIELDS[name])
        self.folder, self.method = folder, Method.from_config(description, num_classes=CLASSES)
        params, variables = variable_shapes(self.method)
        self._shapes = {"params": params, **variables}
        rng, drawn = np.random.default_rng(0), {}
        shapes: dict[str, Any] = traverse_util.flatten_dict(self._shapes, sep="/")
        for path, shape in shapes.items():
            value = rng.normal(size=shape.shape)
            if path.endswith("kernel"):
                value *= (2 / np.prod(shape.shape[:-1])) ** 0.5
            else:
                value = 0.1 * value + path.endswith(("scale", "var"))
            drawn[path] = value.astype(np.float32)
        self.weights = traverse_util.unflatten_dict(drawn, sep="/")
        self._programs: dict[tuple[int, int], Any] = {}
        if name == "segmentation":  # or one class would be best everywhere
            logits = self._predict(Images((40, 40)).pixels(0))["logits"]
            self.weights["params"]["head"]["classifier"]["bias"] -= np.mean(logits, (0, 1, 2))
        others = {k: v for k, v in self.weights.items() if k != "params"}
        save_weights(folder / "weights.npz", self.weights["params"], others)
        write_json(folder / "config.json", {"method": description})

    def _predict(self, image: np.ndarray) -> dict[str, Any]:
        """The method's prediction for one image, in a program of exactly its size."""
        size = image.shape[0], image.shape[1]
        if size not in self._programs:
            inputs = (
                jax.ShapeDtypeStruct((1, *size, 3), np.uint8),
                jax.ShapeDtypeStruct((1, *size), bool),
            )
            lowered = jax.jit(self.method.predict).lower(self._shapes, *inputs)
            self._programs[size] = lowered.compile(compiler_options=QUICK)
        valid = np.ones((1, *size), bool)
        return self._programs[size](self.weights, np.ascontiguousarray(image)[None], valid)

    def one_by_one(
        self, output: str, image: np.ndarray, keep: np.ndarray, how: MultiScale
    ) -> np.ndarray:
        """Maps summed over scales and flips, as one would write it down first."""
        height, width = image.shape[:2]
        total = np.zeros((len(keep), height, width))
        for scale in how.scales:
            size = max(round(height * scale), 1), max(round(width * scale), 1)
            scaled = resize_image(image, *size)
            for flip in (False, True) if how.flip else (False,):
                maps = self._predict(scaled[:, ::-1] if flip else scaled)[output]
                full = np.asarray(maps[0], np.float64).transpose(2, 0, 1)[keep]
                if how.upsample == "corners":
                    full = bilinear(full, size, align_corners=True)
                full = bilinear(full, (height, width), align_corners=False)
                full = full[:, :, ::-1] if flip else full
                total += np.maximum(full, 0) if how.relu_each else full
        return total


def trained_networks(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str], Trained]:
    """The stage's folder of a method (name) with a backbone (name); each is made once."""
    return functools.cache(
        lambda name, backbone: Trained(tmp_path_factory.mktemp(name), name, backbone)
    )


def network_maps(
    images: Images, network: Network, how: MultiScale, channels: Any = np.flatnonzero
) -> NetworkMaps:
    """Maps that are not reduced on the device."""
    return NetworkMaps(images, network, how, channels, lambda total, inside: total)


def summed(maps: ViewMaps | Reduced) -> np.ndarray:
    """The sum of an image's maps, wherever it was made."""
    return maps.values if isinstance(maps, Reduced) else maps.summed()


def maps_of(
    maps: NetworkMaps, positions: Iterable[int]
) -> Iterator[tuple[ViewJob, ViewMaps | Reduced]]:
    """The maps of images, batch by batch as planned."""
    for batch in maps.plan.batches(positions):
        yield from maps.on_device(batch, [maps.prepare(one) for one in batch.positions])


def context(folder: Path, images: Images, index: int = 0, count: int = 1) -> Given:
    folder.mkdir(parents=True, exist_ok=True)
    return Given(ConfigDict(), folder, "cam", folder, index, count, images=images)


SETTINGS = dict(split="train", scales=(0.5, 1.0), max_buckets=1, batch_pixels=1 << 14)
TEN = Images(*[(20 + 3 * i, 40 - 2 * i) for i in range(10)])
