"""Runs random walks on many images, with scores from their maps and affinities from a network.

Images are run in a few padded shapes, as in `wsss_jax.inference.multi_scale`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt8

from wsss_jax.data.augment import resize_image
from wsss_jax.data.block_means import block_means
from wsss_jax.data.formats.cam_files import CamFolder, image_and_cams
from wsss_jax.data.formats.walk_files import Walk
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.host.background import with_background
from wsss_jax.inference.multi_scale import PaddedShapes
from wsss_jax.inference.network import Network
from wsss_jax.ops.buckets import Batch, Size, place
from wsss_jax.ops.pair_affinity import boundary_affinity
from wsss_jax.ops.path_index import pair_offsets, paths
from wsss_jax.ops.random_walk import random_walk
from wsss_jax.ops.sharding import sharded
from wsss_jax.settings.limits import check_limits, check_positive

ASSUMED_LABELS = 4
"""The labels of most batches: the background and up to three classes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WalkSettings(PaddedShapes):
    """Settings that determine how far scores spread.

    Attributes:
      network: the source of affinities: ``affinity`` is AffinityNet; with ``boundary``, affinities
        come from IRNet's boundaries between pixels, and scores on a boundary do not count.
      beta: the exponent of the affinities; large ones leave only the strongest. It is 8 as
        published, and 10 for IRNet.
      steps: the length of the walk, 2^t in the papers: 2^8 for PSA and IRNet, 2^6 for SEAM.
      threshold: the score of the background after a walk with boundaries, relative to the largest
        score of the image; 0.25 as published.
      background: if above 0, the constant score of the background in AffinityNet's walk, in place
        of (1 − max)^alpha. It is 0.2 in SSENet's program.
    """

    network: Literal["affinity", "boundary"] = "affinity"
    beta: float = 8.0
    steps: int = 256
    threshold: float = 0.25
    background: float = 0.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of its range.
        """
        super().__post_init__()
        check_positive(self, "beta", "threshold")
        if self.network == "boundary" and self.threshold >= 1:
            raise UserError(
                f"expected threshold below 1, the strongest score, found {self.threshold}: lower it"
            )
        if not 0 <= self.background < 1 or (self.background and self.network == "boundary"):
            raise UserError(
                "expected background from 0 to below 1, and 0 for a walk with boundaries (it has"
                f" threshold), found {self.background}: change it"
            )
        check_limits(self, steps=(0, 1 << 16))


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared image, whose `scores` have the network's stride, a background (if any) first."""

    position: int
    encoded: bytes
    image: UInt8[np.ndarray, "H W 3"]
    keys: Int32[np.ndarray, " k"]
    scores: Float32[np.ndarray, "labels h w"]
    size: Size

    @property
    def walked(self) -> Size:
        """The height and width of the image as the network gets it."""
        return self.image.shape[0], self.image.shape[1]


class Walks:
    """Runs random walks on many images of a source.

    Args:
      source: the images.
      cams: the CAM files of the images.
      network: the network from `load_network` for affinities or boundaries, as the settings say.
      how: the settings.
      alpha: the exponent of the background (1 − max)^alpha that takes part in the walk, or None for
        no background.
    """

    def __init__(
        self,
        source: Source,
        cams: CamFolder,
        network: Network,
        how: WalkSettings,
        alpha: float | None,
    ):
        self._source, self._cams, self._network = source, cams, network
        self._how, self._alpha = how, alpha
        scaled = {size: (how.scaled(size),) for size in set(source.sizes)}
        sizes = [scaled[size] for size in source.sizes]
        self.plan = how.padded(sizes, network.backbone, devices=network.devices)

    def prepare(self, position: int) -> Prepared:
        """Decodes an image and makes its scores, averaged over blocks of the network's stride.

        Raises:
          UserError: the image or its maps are damaged, or of different sizes.
        """
        record = self._source[position]
        image, keys, scores = image_and_cams(
            record["image"], record["id"], self._cams[record["id"]], len(self._source.classes)
        )
        size = image.shape[0], image.shape[1]
        scaled = self._how.scaled(size)
        if self._how.background:
            level = np.full((1, *scores.shape[1:]), self._how.background, np.float32)
            scores = np.concatenate([level, scores])
        elif self._alpha is not None:
            scores = with_background(scores, self._alpha)
        if scaled != size:
            area = cv2.INTER_AREA
            smaller = np.zeros((len(scores), *scaled), np.float32)
            for plane, score in zip(smaller, scores, strict=True):
                cv2.resize(score, scaled[::-1], dst=plane, interpolation=area)
            scores = smaller
        scores = block_means(scores, self._network.stride)
        image = resize_image(image, *scaled)
        return Prepared(position, record["image"], image, keys, scores, size)

    def on_device(self, batch: Batch, jobs: Sequence[Prepared]) -> Iterator[tuple[Prepared, Walk]]:
        """Starts the walks of a batch; the iterator waits for the scores of its images."""
        run = [job for job in jobs if len(job.keys)]
        walked = None
        if run:
            (bucket,) = batch.bucket
            images, valid = place([job.image for job in run], bucket, batch.rows)
            walked = _walk(self._network, images, valid, [job.scores for job in run], self._how)
        return self._walks(jobs, walked)

    def _walks(
        self, jobs: Sequence[Prepared], walked: Float[Array, "b h w c"] | None
    ) -> Iterator[tuple[Prepared, Walk]]:
        planes = iter(() if walked is None else np.asarray(walked).transpose(0, 3, 1, 2))
        for job in jobs:
            k, h, w = job.scores.shape
            # With background only, a walk changes nothing.
            scores = next(planes)[:k, :h, :w] if len(job.keys) else job.scores
            yield job, Walk(job.keys, scores, job.size, job.walked, self._network.stride)


def _walk(
    network: Network,
    images: UInt8[np.ndarray, "b H W 3"],
    valid: Bool[np.ndarray, "b H W"],
    scores: list[np.ndarray],
    settings: WalkSettings,
) -> Float[Array, "b h w c"]:
    """Starts the network and the walks; the scores of an image fill the first channels."""
    predicted = network.predict(images, valid)
    # A power of two keeps the number of programs small; the added channels stay zero.
    channels = 1 << (max(map(len, scores)) - 1).bit_length()
    canvas = np.zeros((*predicted.shape[:3], channels), np.float32)
    for row, one in enumerate(scores):
        k, h, w = one.shape
        canvas[row, :h, :w, :k] = one.transpose(1, 2, 0)
    affinity, start, offsets = predicted, canvas, pair_offsets()
    if settings.network == "boundary":
        affinity, start = _of_paths(predicted[..., 0], canvas)
        offsets = tuple(path.offset for path in paths())
    return random_walk(
        start,
        affinity,
        offsets=offsets,
        beta=settings.beta,
        steps=settings.steps,
        valid=valid[:, :: network.stride, :: network.stride],
    )


def walk_lowering(
    settings: WalkSettings, size: Size, stride: int, mesh: Mesh
) -> Callable[[int], jax.stages.Lowered]:
    """Returns the function that lowers the walk of so many images of a padded `size`.

    As in a run, it starts where the network left its predictions, sharded over `mesh`. The walk has
    `ASSUMED_LABELS` labels, background included.
    """
    boundary = settings.network == "boundary"
    offsets = tuple(path.offset for path in paths()) if boundary else pair_offsets()
    on_device = sharded(mesh)

    def lower(images: int) -> jax.stages.Lowered:
        shape = (images, *(-(-side // stride) for side in size))
        return random_walk.lower(
            # Only boundaries change the scores on the device before they walk.
            jax.ShapeDtypeStruct(
                (*shape, ASSUMED_LABELS), jnp.float32, sharding=on_device if boundary else None
            ),
            jax.ShapeDtypeStruct((*shape, len(offsets)), jnp.float32, sharding=on_device),
            offsets=offsets,
            beta=settings.beta,
            steps=settings.steps,
            valid=jax.ShapeDtypeStruct(shape, jnp.bool_),
        )

    return lower


@jax.jit
def _of_paths(
    boundary: Float[Array, "b h w"], scores: Float[Array, "b h w c"]
) -> tuple[Float[Array, "b h w o"], Float[Array, "b h w c"]]:
    """Returns the affinities of pairs, and the scores without those on a boundary."""
    return boundary_affinity(boundary)[0], scores * (1 - boundary[..., None])
