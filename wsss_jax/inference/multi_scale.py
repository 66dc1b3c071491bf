"""Multi-scale, flipped inference in a few padded shapes, equal to inference at exact sizes.

Each image is resized to every scale on the host (bicubic, as published), put at the top left of one
of a few padded shapes together with its flipped copy, and run with a mask of valid pixels. The maps
are upsampled to the image's size and summed on the host.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from wsss_jax.data.augment import resize_image
from wsss_jax.data.images import decode_image
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.files import read_json, with_tuples
from wsss_jax.methods.base import Method
from wsss_jax.host.interpolation import interpolation_matrix
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.ops.buckets import Size, bucket_of, choose_buckets
from wsss_jax.ops.sharding import data_mesh, divided, replicated
from wsss_jax.settings import Settings
from wsss_jax.weights.npz import load_weights

CHUNK_IMAGES, CHUNK_PIXELS = 32, 8_000_000
_MULTIPLE = 32  # of the padded sides: every backbone's strides divide it


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaddedShapes(Settings):
    """The padded shapes that images are run in.

    Attributes:
      max_pixels: a scaled image with more pixels is made smaller; at scale 2 a photograph of
        4000 x 3000 would need hundreds of gigabytes.
      max_buckets: how many padded shapes there are.
      batch_pixels: padded pixels that a batch holds at most, unless it is one image.
    """

    max_pixels: int = 3_000_000
    max_buckets: int = 12
    batch_pixels: int = 1 << 19


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiScale(PaddedShapes):
    """Inference at several scales of an image, flipped or not.

    Attributes:
      scales: factors of the image's size.
      flip: whether maps of the flipped image are added.
      upsample: ``corners``: maps are upsampled to the scaled image with aligned corners, then to
        the original (SEAM); ``direct``: to the original at once (PSA, SSENet).
      relu_each: whether negative responses of each map are dropped before the sum (SSENet).
    """

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    flip: bool = True
    upsample: Literal["corners", "direct"] = "corners"
    relu_each: bool = False

    def __post_init__(self) -> None:
        """Checks the scales.

        Raises:
          UserError: there are none, or one that is not above 0.
        """
        super().__post_init__()
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"expected positive scales, found {self.scales}: change scales")

    def sizes(self, size: Size) -> list[Size]:
        """(height, width) at every scale: rounded, at least 1, at most `max_pixels` in all."""
        result = []
        for scale in self.scales:
            pixels = size[0] * size[1] * scale * scale
            factor = scale * min(1.0, (self.max_pixels / pixels) ** 0.5)
            result.append((max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)))
        return result

    def buckets(self, sizes: set[Size]) -> tuple[Size, ...]:
        """The padded shapes for images of `sizes`."""
        scaled = [s for size in sizes for s in self.sizes(size)]
        return choose_buckets(scaled, self.max_buckets, _MULTIPLE)


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network on all local devices: ``predict(images uint8, valid) -> maps``."""

    predict: Callable[[np.ndarray, np.ndarray], np.ndarray]
    stride: int


def load_network(checkpoint: Path, num_classes: int, output: str) -> Network:
    """The network of a training stage's folder; `output` names one of the method's predictions.

    Raises:
      UserError: the folder holds no weights, or the method predicts no `output`.
    """
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
    placement = divided(mesh)

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

    probe = jax.eval_shape(
        outputs,
        weights,
        jax.ShapeDtypeStruct((1, 256, 256, 3), np.uint8),
        jax.ShapeDtypeStruct((1, 256, 256), bool),
    )
    return Network(predict, 256 // probe.shape[1])


def chunks(positions: range, sizes: Sequence[Size]) -> list[range]:
    """`positions` in runs of images that are inferred together, the unit of resuming.

    Which images share a batch never depends on where a run was interrupted, so neither do the last
    bits of a result. A run ends at 32 images, or at 8 million pixels, for its maps are in memory.

    Args:
      positions: images of this process.
      sizes: (height, width) of every image of the source.
    """
    found: list[range] = []
    start = pixels = 0
    for end, position in enumerate(positions):
        pixels += sizes[position][0] * sizes[position][1]
        if end > start and (end - start == CHUNK_IMAGES or pixels > CHUNK_PIXELS):
            found.append(positions[start:end])
            start, pixels = end, sizes[position][0] * sizes[position][1]
    return [*found, positions[start:]] if positions else []


def summed_maps(
    source: Source,
    chunk: range,
    channels: Callable[[np.ndarray], Int[np.ndarray, " k"]],
    network: Network,
    how: MultiScale,
    buckets: tuple[Size, ...],
) -> Iterator[tuple[int, Int[np.ndarray, " k"], Float[np.ndarray, "k h w"]]]:
    """(index, channels, maps at full size summed over scales and flips) of the images of `chunk`.

    Args:
      source: the images.
      chunk: their positions.
      channels: the wanted channels of an image, given its label vector.
      network: see `load_network`.
      how: scales, flip and the like.
      buckets: from `MultiScale.buckets`; all scaled images fit into them.
    """
    with ThreadPoolExecutor(2) as pool:
        records = list(pool.map(source.__getitem__, chunk))
        images = list(pool.map(lambda r: decode_image(r["image"], r["id"]), records))
        wanted = [channels(r["label"]) for r in records]
        totals = [
            np.zeros((len(w), *image.shape[:2]), np.float32)
            for w, image in zip(wanted, images, strict=True)
        ]
        jobs: dict[Size, list[tuple[int, Size]]] = {}
        for position, image in enumerate(images):
            if len(wanted[position]):
                for size in how.sizes((image.shape[0], image.shape[1])):
                    jobs.setdefault(bucket_of(size, buckets), []).append((position, size))
        copies = 2 if how.flip else 1
        for bucket, group in sorted(jobs.items()):
            rows = max(how.batch_pixels // (bucket[0] * bucket[1] * copies), 1)
            for start in range(0, len(group), rows):
                batch = group[start : start + rows]
                scaled = list(pool.map(lambda job: resize_image(images[job[0]], *job[1]), batch))
                maps = network.predict(*place(scaled, bucket, rows, how.flip))
                for row, (position, size) in enumerate(batch):
                    low = (-(-size[0] // network.stride), -(-size[1] // network.stride))
                    for copy in range(copies):
                        part = maps[copies * row + copy, : low[0], : low[1], wanted[position]]
                        whole = images[position].shape[0], images[position].shape[1]
                        full = upsample(part, size, whole, how)
                        totals[position] += full[:, :, ::-1] if copy else full
    yield from zip(chunk, wanted, totals, strict=True)


def place(
    images: list[UInt8[np.ndarray, "_ _ 3"]], bucket: Size, rows: int, flip: bool
) -> tuple[UInt8[np.ndarray, "n h w 3"], Bool[np.ndarray, "n h w"]]:
    """Images (each followed by its flipped copy with `flip`) at the top left of `bucket`.

    Returns:
      uint8 [rows·copies, H, W, 3], empty where there are fewer images than `rows`, and masks.
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


def upsample(
    maps: Float[np.ndarray, "k h w"], scaled: Size, size: Size, how: MultiScale
) -> Float[np.ndarray, "k H W"]:
    """Low-resolution maps of an image of size `scaled` at `size`, see `MultiScale`."""

    def matrix(low: int, middle: int, full: int) -> np.ndarray:
        if how.upsample == "direct":
            return interpolation_matrix(low, full, align_corners=False)
        return interpolation_matrix(middle, full, align_corners=False) @ interpolation_matrix(
            low, middle, align_corners=True
        )

    rows = matrix(maps.shape[1], scaled[0], size[0])
    columns = matrix(maps.shape[2], scaled[1], size[1])
    full = rows @ maps.astype(np.float32) @ columns.T
    return np.maximum(full, 0) if how.relu_each else full
