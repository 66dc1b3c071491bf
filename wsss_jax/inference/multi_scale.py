"""Inference over scales and flips in a few padded shapes, equal to inference at exact sizes.

Each image is resized to every scale on the host (bicubic, as published), put at the top left of one
of a few padded shapes together with its flipped copy, and run with a mask of valid pixels. The maps
are upsampled to the image's size and summed on the host.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Bool, Int, UInt8

from wsss_jax.data.augment import resize_image
from wsss_jax.data.images import decode_image
from wsss_jax.data.source import Source
from wsss_jax.data.threads import ahead
from wsss_jax.errors import UserError
from wsss_jax.files import read_json, with_tuples
from wsss_jax.host.host_memory import keep_freed_memory
from wsss_jax.host.upsampling import View, ViewMaps
from wsss_jax.methods.base import Method
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.models.base import Backbone
from wsss_jax.ops.buckets import Batch, Size, batches, choose_buckets
from wsss_jax.ops.sharding import data_mesh, replicated, sharded
from wsss_jax.settings import Settings
from wsss_jax.weights.npz import load_weights

_LEAST_MULTIPLE = 32  # padded sides are multiples of this; a coarse grid keeps the shapes few


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaddedShapes(Settings):
    """The padded shapes in which images are run.

    Attributes:
      max_pixels: the most pixels of a scaled image, which is made smaller otherwise. At scale 2, a
        photograph of 4000 x 3000 would need hundreds of gigabytes.
      max_buckets: the largest number of padded shapes.
      batch_pixels: the most padded pixels of a batch, unless it is one image.
    """

    max_pixels: int = 3_000_000
    max_buckets: int = 12
    batch_pixels: int = 1 << 19

    def __post_init__(self) -> None:
        """Checks the limits.

        Raises:
          UserError: one of them leaves nothing.
        """
        super().__post_init__()
        for name in ("max_pixels", "max_buckets", "batch_pixels"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"expected {name} of at least 1, found {getattr(self, name)}: raise it"
                )

    def scaled(self, size: Size, scale: float = 1.0) -> Size:
        """Returns (height, width) at a scale: rounded, at least 1, and at most `max_pixels`."""
        pixels = size[0] * size[1] * scale * scale
        factor = scale * min(1.0, (self.max_pixels / pixels) ** 0.5)
        return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)

    def buckets(self, sizes: Iterable[Size], backbone: Backbone) -> tuple[Size, ...]:
        """Returns padded shapes for images of `sizes`, which all strides of the backbone divide.

        If the padding of the backbone is not exact, these are the sizes themselves, however many
        there are.
        """
        if not backbone.exact_padding:
            return tuple(sorted(set(sizes)))
        common = math.lcm(*backbone.tap_strides.values())
        multiple = -(-_LEAST_MULTIPLE // common) * common
        return choose_buckets(sizes, self.max_buckets, multiple)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiScale(PaddedShapes):
    """Inference at several scales of an image, with or without flips.

    Attributes:
      scales: the factors of the image's size.
      flip: whether maps of the flipped image are added.
      upsample: how maps are upsampled: ``corners`` resizes them to the scaled image with aligned
        corners and then to the original (SEAM), and ``direct`` to the original in one step (PSA,
        SSENet).
      relu_each: whether negative responses of each map are set to zero before the sum (SSENet).
    """

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    flip: bool = True
    upsample: Literal["corners", "direct"] = "corners"
    relu_each: bool = False

    def __post_init__(self) -> None:
        """Checks the scales.

        Raises:
          UserError: there are none, or one is not above 0.
        """
        super().__post_init__()
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"expected positive scales, found {self.scales}: change scales")


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network on all local devices.

    Attributes:
      predict: the function ``predict(images uint8, valid) -> maps``.
      stride: the image pixels per pixel of the maps.
      backbone: the backbone, which states to which shapes images may be padded.
    """

    predict: Callable[[np.ndarray, np.ndarray], np.ndarray]
    stride: int
    backbone: Backbone


def load_network(checkpoint: Path, num_classes: int, output: str) -> Network:
    """Loads the network of a training stage's folder for one of the method's predictions, `output`.

    Raises:
      UserError: the folder has no weights, or the method does not predict `output`.
    """
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    description = with_tuples(read_json(checkpoint / "config.json")["method"])
    method = Method.from_config(description, "method", num_classes=num_classes)
    if output not in method.outputs:
        raise UserError(
            f"expected output to be one of {', '.join(method.outputs)}, which the network of"
            f" {checkpoint} predicts, found {output!r}: change it or the checkpoint"
        )
    shapes = variable_shapes(method)
    params, variables = load_weights(checkpoint / "weights.npz", *shapes)
    mesh = data_mesh(jax.local_devices())
    weights = jax.device_put({"params": params, **variables}, replicated(mesh))
    placement = sharded(mesh)

    def outputs(weights, images, valid):
        return method.predict(weights, images, valid)[output]

    jitted = jax.jit(
        outputs, in_shardings=(replicated(mesh), placement, placement), out_shardings=placement
    )

    def predict(images: np.ndarray, valid: np.ndarray) -> np.ndarray:
        short = -len(images) % mesh.devices.size
        if short:  # every device gets the same number of images
            images = np.concatenate([images, np.zeros((short, *images.shape[1:]), np.uint8)])
            valid = np.concatenate([valid, np.zeros((short, *valid.shape[1:]), bool)])
        return np.asarray(jitted(weights, images, valid))[: len(images) - short]

    return Network(predict, method.stride(output), method.backbone)


@dataclasses.dataclass(frozen=True)
class ViewJob:
    """An image for a network: its position, the encoded and decoded image, and its channels."""

    position: int
    encoded: bytes
    image: UInt8[np.ndarray, "H W 3"]
    channels: Int[np.ndarray, " k"]

    @property
    def size(self) -> Size:
        """The height and width."""
        return self.image.shape[0], self.image.shape[1]


class NetworkMaps:
    """Computes the maps of many images with a network, over scales and flips.

    Args:
      source: the images.
      network: the network from `load_network`.
      how: the settings.
      channels: a function from the label vector of an image to the channels to keep.
    """

    def __init__(
        self,
        source: Source,
        network: Network,
        how: MultiScale,
        channels: Callable[[np.ndarray], Int[np.ndarray, " k"]],
    ):
        self._source, self._network, self._how, self._channels = source, network, how, channels
        sizes = (how.scaled(size, scale) for size in set(source.sizes) for scale in how.scales)
        self.buckets = how.buckets(sizes, network.backbone)

    def prepare(self, position: int) -> ViewJob:
        """Reads and decodes an image.

        Raises:
          UserError: the image is damaged.
        """
        record = self._source[position]
        image = decode_image(record["image"], record["id"])
        return ViewJob(position, record["image"], image, self._channels(record["label"]))

    def on_device(self, jobs: Sequence[ViewJob]) -> Iterator[tuple[ViewJob, ViewMaps]]:
        """Runs images in common batches and yields each as soon as all its scales are done."""
        how, stride = self._how, self._network.stride
        copies = 2 if how.flip else 1
        views: dict[int, list[View]] = {job.position: [] for job in jobs}
        items: list[tuple[Size, tuple[ViewJob, Size]]] = []
        for job in jobs:
            if len(job.channels):
                scaled = [how.scaled(job.size, scale) for scale in how.scales]
                items += [(size, (job, size)) for size in scaled]
            else:
                yield job, self._maps(job, [])

        def placed(batch: Batch[tuple[ViewJob, Size]]) -> tuple[Batch, np.ndarray, np.ndarray]:
            images = [resize_image(job.image, *size) for job, size in batch.items]
            return batch, *place(images, batch.bucket, batch.rows, how.flip)

        groups = [[batch] for batch in batches(items, self.buckets, how.batch_pixels // copies)]
        with ThreadPoolExecutor(1) as pool:
            for ((batch, images, valid),) in ahead(pool, placed, groups, 1):
                maps = self._network.predict(images, valid)
                for row, (job, size) in enumerate(batch.items):
                    height, width = (-(-side // stride) for side in size)
                    for copy in range(copies):
                        part = maps[copies * row + copy, :height, :width, job.channels]
                        views[job.position].append(View(part, size, bool(copy)))
                    if len(views[job.position]) == copies * len(how.scales):
                        yield job, self._maps(job, views.pop(job.position))

    def _maps(self, job: ViewJob, views: Sequence[View]) -> ViewMaps:
        how = self._how
        return ViewMaps(job.size, job.channels, tuple(views), how.upsample, how.relu_each)


def place(
    images: list[UInt8[np.ndarray, "_ _ 3"]], bucket: Size, rows: int, flip: bool
) -> tuple[UInt8[np.ndarray, "n h w 3"], Bool[np.ndarray, "n h w"]]:
    """Puts images, each followed by its flipped copy if `flip`, at the top left of `bucket`.

    Returns:
      uint8 [rows·copies, H, W, 3], which is empty where there are fewer images than `rows`, and
      masks of valid pixels.
    """
    copies = 2 if flip else 1
    canvas = np.zeros((rows * copies, *bucket, 3), np.uint8)
    valid = np.zeros((rows * copies, *bucket), bool)
    for row, image in enumerate(images):
        height, width = image.shape[:2]
        for copy in range(copies):
            canvas[copies * row + copy, :height, :width] = image[:, ::-1] if copy else image
            valid[copies * row + copy, :height, :width] = True
    return canvas, valid
