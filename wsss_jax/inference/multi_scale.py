"""Inference over scales and flips in a few padded shapes, equal to inference at exact sizes.

Each image is resized to every scale on the host (bicubic, as published), put at the top left of one
of a few padded shapes together with its flipped copy, and run with a mask of valid pixels. The maps
are upsampled to the image's size and summed, on the host for a CPU and on the device otherwise.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, UInt8

from wsss_jax.data.augment import resize_image
from wsss_jax.data.images import decode_image
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.host.upsampling import Reduced, View, ViewMaps
from wsss_jax.inference.device_sum import Reduce, add_scale, reduced, wanted
from wsss_jax.inference.network import Network
from wsss_jax.models.base import Backbone
from wsss_jax.ops.buckets import Batch, Plan, Size, Sizes, choose_buckets, place
from wsss_jax.ops.sharding import sharded
from wsss_jax.settings import Settings
from wsss_jax.settings.limits import check_limits

_PROGRAM_PIXELS = 2_000_000
"""The pixels that a network runs through while one of its programs is compiled.

On two CPU cores, these are 1 million for ResNet-50 and 7 million for MobileNetV2.
"""

_MOST_SUMS = 1 << 29
"""The most sums of maps on a device, which take 2 GB in float32: 12 megapixels with 40 labels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaddedShapes(Settings):
    """The padded shapes in which images are run.

    Attributes:
      max_pixels: the most pixels of a scaled image, which is made smaller otherwise. At scale 2, a
        photograph of 4000 x 3000 would need hundreds of gigabytes.
      max_buckets: the most groups of images of similar sizes. All images of a group are padded to
        the same shape, which differs between scales. There are fewer groups where compiling more
        programs would take longer than it saves.
      batch_pixels: the most padded pixels of a batch on each device, unless it is one image.
    """

    max_pixels: int = 3_000_000
    max_buckets: int = 4
    batch_pixels: int = 1 << 19

    def __post_init__(self) -> None:
        """Checks the limits.

        Raises:
          UserError: one of them leaves nothing.
        """
        super().__post_init__()
        names = ("max_pixels", "max_buckets", "batch_pixels")
        check_limits(self, **dict.fromkeys(names, (1, math.inf)))

    def scaled(self, size: Size, scale: float = 1.0) -> Size:
        """Returns (height, width) at a scale: rounded, at least 1, and at most `max_pixels`."""
        pixels = size[0] * size[1] * scale * scale
        factor = scale * min(1.0, (self.max_pixels / pixels) ** 0.5)
        return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)

    def padded(
        self,
        sizes: Sequence[Sizes],
        backbone: Backbone,
        copies: int = 1,
        devices: int = 1,
        multiple: int = 1,
    ) -> Plan:
        """Plans in which padded shapes and batches images run.

        All strides of the backbone divide the padded sides. If the padding of the backbone is not
        exact, the shapes are the sizes themselves, however many there are.

        Args:
          sizes: the sizes of every image, at each scale.
          backbone: the backbone of the network.
          copies: how often each image is run at each scale: twice with a flipped copy.
          devices: the number of devices.
          multiple: another number that divides the padded sides.
        """
        if backbone.exact_padding:
            multiple = math.lcm(multiple, *backbone.tap_strides.values())
            program_pixels = _PROGRAM_PIXELS // copies
            buckets = choose_buckets(sizes, self.max_buckets, multiple, program_pixels)
        else:
            buckets = tuple(sorted(set(sizes)))
        return Plan(sizes, buckets, self.batch_pixels // copies, devices)


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
      sum_on: where maps are upsampled and summed: on the ``host``, on the ``device``, or, with
        ``auto``, on the host for CPUs and on the device otherwise. The results differ by rounding.
        From a device, scores for a CRF come in half precision.
    """

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    flip: bool = True
    upsample: Literal["corners", "direct"] = "corners"
    relu_each: bool = False
    sum_on: Literal["auto", "host", "device"] = "auto"

    def __post_init__(self) -> None:
        """Checks the scales.

        Raises:
          UserError: there are none, or one is not above 0.
        """
        super().__post_init__()
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"expected positive scales, found {self.scales}: change scales")

    @property
    def copies(self) -> int:
        """How often an image is run at each scale."""
        return 2 if self.flip else 1

    def plan(
        self, sizes: Sequence[Size], backbone: Backbone, devices: int = 1, multiple: int = 1
    ) -> Plan:
        """Plans in which padded shapes and batches images of `sizes` run; see `padded`."""
        scaled = {
            size: tuple(self.scaled(size, scale) for scale in self.scales) for size in set(sizes)
        }
        own = [scaled[size] for size in sizes]
        return self.padded(own, backbone, self.copies, devices, multiple)


def sums_on_device(sum_on: str, mesh: Mesh) -> bool:
    """Returns whether maps are upsampled and summed on the devices; see `MultiScale.sum_on`."""
    return sum_on == "device" or (sum_on == "auto" and mesh.devices.flat[0].platform != "cpu")


@dataclasses.dataclass(frozen=True)
class ViewJob:
    """An image for a network.

    Attributes:
      position: its position in the source.
      encoded: its file.
      size: its height and width.
      scaled: the image at every scale; nothing if there are no `channels`.
      channels: the channels of the network to keep.
    """

    position: int
    encoded: bytes
    size: Size
    scaled: tuple[UInt8[np.ndarray, "_ _ 3"], ...]
    channels: Int[np.ndarray, " k"]


class NetworkMaps:
    """Computes the maps of many images with a network, over scales and flips.

    Args:
      source: the images.
      network: the network from `wsss_jax.inference.network.load_network`.
      how: the settings.
      channels: a function from the label vector of an image to the channels to keep.
      reduce: what the device makes of the sums before they cross to the host. Summed on the host,
        maps are not reduced.
      multiple: a number that divides the padded sides, so that later images of other sizes need
        fewer programs.
    """

    def __init__(
        self,
        source: Source,
        network: Network,
        how: MultiScale,
        channels: Callable[[np.ndarray], Int[np.ndarray, " k"]],
        reduce: Reduce,
        multiple: int = 1,
    ):
        self._source, self._network, self._how, self._channels = source, network, how, channels
        self._reduce = reduce
        self.plan = how.plan(source.sizes, network.backbone, network.devices, multiple)
        self._canvases = self.plan.canvases(source.sizes)
        self._on_device = sums_on_device(how.sum_on, network.mesh)

    def prepare(self, position: int) -> ViewJob:
        """Reads and decodes an image and resizes it to all scales.

        Raises:
          UserError: the image is damaged.
        """
        record = self._source[position]
        image, channels = (
            decode_image(record["image"], record["id"]),
            self._channels(record["label"]),
        )
        sizes = self.plan.sizes[position] if len(channels) else ()
        scaled = tuple(resize_image(image, *size) for size in sizes)
        height, width = image.shape[:2]
        return ViewJob(position, record["image"], (height, width), scaled, channels)

    def on_device(
        self, batch: Batch, jobs: Sequence[ViewJob]
    ) -> Iterator[tuple[ViewJob, ViewMaps | Reduced]]:
        """Starts to run a batch on the device; the iterator waits for the maps of its images."""
        run = [job for job in jobs if len(job.channels)]
        maps: list[jax.Array] = []
        for scale, bucket in enumerate(batch.bucket if run else ()):
            images = [job.scaled[scale] for job in run]
            maps.append(self._network.predict(*place(images, bucket, batch.rows, self._how.flip)))
        if run and self._on_device and self._fits(batch, run):
            values = self._summed(batch, run, maps)
            values.copy_to_host_async()
            return self._reduced(jobs, run, values)
        return self._results(jobs, run, maps)

    def _fits(self, batch: Batch, run: Sequence[ViewJob]) -> bool:
        """Returns whether the sums of a batch fit onto a device; the host sums those of others."""
        canvas = math.prod(self._canvases[batch.bucket])
        channels = max(len(job.channels) for job in run)
        return batch.rows // self._network.devices * channels * canvas <= _MOST_SUMS

    def _summed(self, batch: Batch, run: Sequence[ViewJob], maps: Sequence[jax.Array]) -> jax.Array:
        """Starts to sum the maps of a batch on the device and to reduce the sums."""
        how, stride = self._how, self._network.stride
        images = wanted(
            [job.channels for job in run],
            [job.size for job in run],
            batch.rows,
            maps[0].shape[-1],
        )
        shape = (*images.channels.shape, *self._canvases[batch.bucket])
        total = jnp.zeros(shape, jnp.float32, device=sharded(self._network.mesh))
        for scale, (one, padded) in enumerate(zip(maps, batch.bucket, strict=True)):
            scaled = np.ones((batch.rows, 2), np.int32)
            scaled[: len(run)] = [job.scaled[scale].shape[:2] for job in run]
            total = add_scale(
                total,
                one,
                -(-scaled // stride),
                scaled,
                images,
                copies=how.copies,
                padded=padded,
                upsample=how.upsample,
                relu_each=how.relu_each,
            )
        return reduced(total, images, reduce=self._reduce)

    def _reduced(
        self, jobs: Sequence[ViewJob], run: Sequence[ViewJob], values: jax.Array
    ) -> Iterator[tuple[ViewJob, ViewMaps | Reduced]]:
        """Yields the reduced sums of `jobs`; `values` has those of `run`."""
        on_host = np.asarray(values)
        rows = {job.position: row for row, job in enumerate(run)}
        for job in jobs:
            if job.position not in rows:
                yield job, self._view_maps(job, ())
                continue
            own = on_host[rows[job.position], ..., : job.size[0], : job.size[1]]
            yield job, Reduced(job.channels, own[: len(job.channels)] if own.ndim == 3 else own)

    def _results(
        self, jobs: Sequence[ViewJob], run: Sequence[ViewJob], maps: Sequence[jax.Array]
    ) -> Iterator[tuple[ViewJob, ViewMaps]]:
        """Yields the maps of `jobs`; `maps` has the results of `run` at each scale."""
        how, stride = self._how, self._network.stride
        on_host = [np.asarray(one) for one in maps]
        rows = {job.position: row for row, job in enumerate(run)}
        for job in jobs:
            views: list[View] = []
            for scale, image in enumerate(job.scaled):
                size = image.shape[0], image.shape[1]
                height, width = (-(-side // stride) for side in size)
                for copy in range(how.copies):
                    row = how.copies * rows[job.position] + copy
                    part = on_host[scale][row, :height, :width, job.channels]
                    views.append(View(part, size, bool(copy)))
            yield job, self._view_maps(job, views)

    def _view_maps(self, job: ViewJob, views: Sequence[View]) -> ViewMaps:
        how = self._how
        return ViewMaps(job.size, job.channels, tuple(views), how.upsample, how.relu_each)
