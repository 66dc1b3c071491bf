"""The stage that makes masks with a segmentation network: ``masks/<id>.png``."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from wsss_jax.accelerators.programs import DeviceProgram
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError
from wsss_jax.host.dense_crf import CrfSettings, memory
from wsss_jax.host.logit_masks import LogitTask, write_logit_mask, write_logit_mask_and_scores
from wsss_jax.host.upsampling import Reduced, ViewMaps
from wsss_jax.inference.multi_scale import MultiScale, NetworkMaps, ViewJob
from wsss_jax.inference.network import load_network
from wsss_jax.settings import part
from wsss_jax.stages.base import Context, Needs, SplitSize, expect_prediction
from wsss_jax.stages.crf_stage import CrfStage
from wsss_jax.stages.mask_counts import MaskCounts
from wsss_jax.stages.network_programs import (
    MOST_LABELS,
    multi_scale_programs,
    trained_method,
)
from wsss_jax.stages.per_image import ImageWork

_PLAIN = 0.25  # a network that does not know the labels misses small objects


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(MultiScale, CrfSettings, CrfStage):
    """Makes masks with a segmentation network over scales and flips: ``masks/<id>.png``.

    It uses the network of the need ``checkpoint``. A pixel gets the class with the highest mean
    logit over scales and flips, or the most probable class after a dense CRF.

    Attributes:
      crf: whether a dense CRF over all classes follows, on the softmax of the mean logits.
      iterations: the number of mean-field updates of the CRF, which is 1 in PSA and SEAM.
      known_labels: whether masks are restricted to the image-level labels and the background.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"checkpoint": ("weights.npz",)}
    outputs: ClassVar[tuple[str, ...]] = ("masks/",)

    crf: bool = False
    iterations: int = 1
    known_labels: bool = False

    def check(self, needs: Needs) -> None:
        """Refuses what cannot work; see `Stage`."""
        super().check(needs)
        expect_prediction(needs, "logits")

    def programs(
        self, sizes: Mapping[str, SplitSize], needs: Needs, mesh: Mesh
    ) -> list[DeviceProgram]:
        """The network in every padded shape, and sums of its maps; see `Stage`."""
        size = sizes.get(self.split)
        method = trained_method(needs, size)
        most = 1 + MOST_LABELS if self.known_labels else None
        return multi_scale_programs(self, method, "logits", size, mesh, most)

    def crf_labels(self, classes: int) -> int:
        """All classes, unless masks are restricted to the image's labels; see `CrfStage`."""
        if not self.crf:
            return 0
        return super().crf_labels(classes) if self.known_labels else 1 + classes

    def crf_bytes(self, sizes: Iterable[tuple[int, int]], classes: int) -> int:
        """The logits of large images are small too; see `CrfStage`."""
        labels = self.crf_labels(classes)
        every = (memory(size, labels, bounded=True) for size in set(sizes))
        return max(every, default=0) if labels else 0

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``, settings, with a CRF the metrics of `CrfStage.on_images_with_crf`, and what
          this process's masks show (see `MaskCounts.metrics`).

        Raises:
          UserError: for the same reasons as `work`.
        """
        source = ctx.source(self.split)
        work = self.work(source, inputs["checkpoint"])
        counts = MaskCounts(source)
        done, crf = self.on_images_with_crf(ctx, source, work, "masks", counts.add)
        counts.add_kept(ctx, done)
        known = {} if self.known_labels else {"plausible": _PLAIN}
        return {
            "images": len(source),
            "scales": list(self.scales),
            "flip": self.flip,
            "crf": self.crf,
            **crf,
            **counts.metrics(ctx, "the network may have learned little", **known),
        }

    def work(self, source: Source, checkpoint: Path, scores: bool = False) -> ImageWork[np.ndarray]:
        """Returns the work that makes the masks of `source` with a training stage's network.

        Args:
          source: the images.
          checkpoint: the folder of the training stage.
          scores: whether ``scores/<id>.json`` is made, too; see `write_logit_mask_and_scores`.

        Raises:
          UserError: the network is missing or is not a segmentation network, or masks should be
            restricted to labels but there are none.
        """
        if self.known_labels and not any(source[i]["label"].any() for i in range(len(source))):
            raise UserError(
                "expected labels of the images for known_labels=True, found none: choose a split"
                " that has them, or known_labels=False"
            )
        network = load_network(checkpoint, len(source.classes), "logits")
        maps = NetworkMaps(
            source, network, self, self.channels, self.centered if self.crf or scores else _best
        )
        finish, files = write_logit_mask, ("masks/{id}.png",)
        if scores:
            finish = functools.partial(write_logit_mask_and_scores, tuple(source.classes))
            files = (*files, "scores/{id}.json")
        crf = part(self, CrfSettings) if self.crf else None

        def task(job: ViewJob, logits: ViewMaps | Reduced) -> LogitTask:
            image = job.encoded if crf else b""
            return LogitTask(source.ids[job.position], logits, image, crf)

        return ImageWork(
            files=files,
            prepare=maps.prepare,
            plan=maps.plan.batches,
            on_device=lambda batch, jobs: (
                (job.position, task(job, logits)) for job, logits in maps.on_device(batch, jobs)
            ),
            sizes=source.sizes,
            finish=finish,
            processes=self.workers if self.crf else None,
            process_bytes=self.crf_bytes(source.sizes, len(source.classes)),
        )

    def centered(self, total: Array, inside: Array) -> Array:
        """Returns mean logits relative to the best class, which are small where they matter."""
        mean = total / (len(self.scales) * self.copies)
        return (mean - mean.max(1, keepdims=True)).astype(jnp.float16)

    def channels(self, label: np.ndarray) -> np.ndarray:
        """Returns the network's channels that a mask may show: the background and classes."""
        shown = np.flatnonzero(label) if self.known_labels else np.arange(len(label))
        return np.concatenate([[0], shown + 1])


def _best(total: Array, inside: Array) -> Array:
    """Returns the position of the best channel."""
    return total.argmax(1).astype(jnp.uint8 if total.shape[1] <= 256 else jnp.uint16)
