"""Random walks over many images: scores from their maps, affinities in batches, results.

Images are run in a few padded shapes, as in `wsss_jax.inference`.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8

from wsss_jax.data.augment import resize_image
from wsss_jax.data.cam_files import read_cams
from wsss_jax.data.images import decode_image
from wsss_jax.data.source import Source
from wsss_jax.data.walk_files import Walk
from wsss_jax.errors import UserError
from wsss_jax.inference import MultiScale, Network, place
from wsss_jax.ops.buckets import Size, bucket_of
from wsss_jax.ops.path_index import pair_offsets
from wsss_jax.ops.random_walk import random_walk
from wsss_jax.stages.crf import with_background


@dataclasses.dataclass(frozen=True)
class WalkSettings:
    """How far scores spread.

    Attributes:
      alpha: power of the background (1 − max)^alpha (PSA: 16; SEAM tunes it).
      beta: power of the affinities; large ones leave only the strongest (published: 8).
      steps: length of the walk, 2^t in the papers (PSA: 2^8, SEAM: 2^6).
    """

    alpha: float
    beta: float
    steps: int

    def __post_init__(self):
        """Checks the values.

        Raises:
          UserError: one of them makes no sense.
        """
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UserError(f"expected {name} above 0, found {value}: change it")
        if not 0 <= self.steps <= 1 << 16:
            raise UserError(f"expected steps in 0…65536, found {self.steps}: change it")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An image on its way: `scores` [K + 1, h, w] are at the network's stride."""

    index: int
    image: UInt8[np.ndarray, "H W 3"]
    keys: Int32[np.ndarray, " k"]
    scores: Float32[np.ndarray, "labels h w"]
    size: Size

    @property
    def walked(self) -> Size:
        """Height and width of the image as the network sees it."""
        return self.image.shape[0], self.image.shape[1]


def prepare(
    source: Source, index: int, cams: Path, how: MultiScale, alpha: float, stride: int
) -> Prepared:
    """Decodes an image and makes its scores: background first, averaged over blocks of `stride`.

    Raises:
      UserError: the image or its maps are damaged, or of different sizes.
    """
    record = source[index]
    image = decode_image(record["image"], record["id"])
    size = image.shape[0], image.shape[1]
    keys, cam = read_cams(cams, len(source.classes))
    if len(keys) == 0:  # an empty file may not know the image's size
        cam = np.zeros((0, *size), np.float32)
    if cam.shape[1:] != size:
        raise UserError(
            f"{cams}: expected maps of {size[1]}×{size[0]} pixels as image {record['id']} has,"
            f" found {cam.shape[2]}×{cam.shape[1]}; make them from the same images"
        )
    (scaled,) = how.sizes(size)
    scores = with_background(cam.astype(np.float32), alpha)
    if scaled != size:
        area = cv2.INTER_AREA
        scores = np.stack([cv2.resize(s, scaled[::-1], interpolation=area) for s in scores])
    return Prepared(index, resize_image(image, *scaled), keys, pooled(scores, stride), size)


def pooled(scores: Float[np.ndarray, "k h w"], stride: int) -> Float32[np.ndarray, "k p q"]:
    """Means over blocks of `stride` × `stride` pixels, of those that the image has.

    The published program counts the zeros beyond the last row and column too, which dims the edge.
    """
    k, h, w = scores.shape
    rows, columns = -(-h // stride), -(-w // stride)
    canvas = np.zeros((k, rows * stride, columns * stride), np.float32)
    canvas[:, :h, :w] = scores
    sums = canvas.reshape(k, rows, stride, columns, stride).sum((2, 4))
    pixels = (np.minimum(stride, side - stride * np.arange(-(-side // stride))) for side in (h, w))
    return sums / np.outer(*pixels).astype(np.float32)


def walk_images(
    prepared: list[Prepared],
    network: Network,
    how: MultiScale,
    buckets: tuple[Size, ...],
    settings: WalkSettings,
) -> Iterator[tuple[int, Walk]]:
    """(index, result) of the images, in batches of one padded shape."""
    jobs: dict[Size, list[Prepared]] = {}
    for one in prepared:
        if len(one.keys):
            jobs.setdefault(bucket_of(one.walked, buckets), []).append(one)
        else:  # nothing but background, wherever it walks
            yield one.index, Walk(one.keys, one.scores, one.size, one.walked, network.stride)
    for bucket, group in sorted(jobs.items()):
        rows = max(how.batch_pixels // (bucket[0] * bucket[1]), 1)
        for start in range(0, len(group), rows):
            batch = group[start : start + rows]
            images, valid = place([one.image for one in batch], bucket, rows, flip=False)
            walked = _walk(network, images, valid, [one.scores for one in batch], settings)
            for one, scores in zip(batch, walked, strict=True):
                yield one.index, Walk(one.keys, scores, one.size, one.walked, network.stride)


def _walk(
    network: Network,
    images: UInt8[np.ndarray, "b H W 3"],
    valid: Bool[np.ndarray, "b H W"],
    scores: list[np.ndarray],
    settings: WalkSettings,
) -> list[Float32[np.ndarray, "labels h w"]]:
    affinity = network.predict(images, valid)
    map_valid = valid[:, :: network.stride, :: network.stride]
    # Powers of two, so that few programs are compiled; what is added is zero and stays zero.
    channels = 1 << (max(map(len, scores)) - 1).bit_length()
    canvas = np.zeros((*affinity.shape[:3], channels), np.float32)
    for row, one in enumerate(scores):
        k, h, w = one.shape
        canvas[row, :h, :w, :k] = one.transpose(1, 2, 0)
    walked = random_walk(
        canvas,
        affinity,
        offsets=pair_offsets(),
        beta=settings.beta,
        steps=settings.steps,
        valid=map_valid,
    )
    planes = np.asarray(walked).transpose(0, 3, 1, 2)
    ends = [one.shape for one in scores]  # the batch may have empty rows after them
    return [plane[:k, :h, :w] for plane, (k, h, w) in zip(planes, ends, strict=False)]
