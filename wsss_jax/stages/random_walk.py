"""The stage that spreads class activation maps with AffinityNet's or IRNet's random walk.

Sources: Ahn & Kwak, CVPR 2018; Ahn et al., CVPR 2019. ``walk/<id>.npz`` holds the scores (see
`wsss_jax.data.formats.walk_files`), ``masks/<id>.png`` the masks and ``confidence/<id>.png`` their
confidence.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from jax.sharding import Mesh

from wsss_jax.accelerators.programs import DeviceProgram
from wsss_jax.data.confidence import CONFIDENCE_FOLDER
from wsss_jax.data.formats.cam_files import CamFolder
from wsss_jax.data.formats.walk_files import Walk
from wsss_jax.host.dense_crf import CrfSettings
from wsss_jax.host.walk_masks import WalkTask, write_walk_and_mask
from wsss_jax.inference.network import load_network
from wsss_jax.inference.random_walk import (
    ASSUMED_LABELS,
    Prepared,
    Walks,
    WalkSettings,
    walk_lowering,
)
from wsss_jax.ops.sharding import shardable
from wsss_jax.settings import part
from wsss_jax.stages.base import Context, Needs, SplitSize, expect_prediction
from wsss_jax.stages.crf_stage import CrfStage
from wsss_jax.stages.mask_counts import MaskCounts
from wsss_jax.stages.network_programs import (
    image_sizes,
    local_mesh,
    network_programs,
    padded_shapes,
    size_remarks,
    trained_method,
)
from wsss_jax.stages.per_image import ImageWork
from wsss_jax.stages.references import check_alpha, resolved_alpha


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomWalk(WalkSettings, CrfSettings, CrfStage):
    """Spreads class activation maps with AffinityNet's or IRNet's random walk.

    It uses the network of the need ``checkpoint`` and the maps of the need ``cams``. A mask can
    only have classes that have maps.

    Attributes:
      alpha: the exponent of the background (1 − max)^alpha that takes part in the walk, only with
        ``affinity``. PSA has 16, and SEAM tunes it. It is a number, or ``from:NEED`` for the α that
        equals the threshold of that stage.
      crf: whether a final dense CRF follows.
      iterations: the number of mean-field updates of the CRF, which is 1 in PSA.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "cams": ("cams/",),
        "checkpoint": ("weights.npz",),
    }
    outputs: ClassVar[tuple[str, ...]] = ("masks/", "confidence/", "walk/")

    alpha: float | str = 16.0
    crf: bool = False
    iterations: int = 1

    def check(self, needs: Needs) -> None:
        """Refuses what cannot work; see `Stage`."""
        super().check(needs)
        check_alpha(self.alpha, "alpha", needs)
        expect_prediction(needs, self.network, "network")

    def programs(
        self, sizes: Mapping[str, SplitSize], needs: Needs, mesh: Mesh
    ) -> list[DeviceProgram]:
        """The network in every padded shape, and the walks after it; see `Stage`."""
        size = sizes.get(self.split)
        method = trained_method(needs, size)
        if method is None:
            return []
        local, processes = local_mesh(mesh)
        scaled = [(self.scaled(one),) for one in image_sizes(size)]
        plan = self.padded(scaled, method.backbone, devices=local.devices.size)
        shapes = padded_shapes(plan, 1, size, processes)
        networks = network_programs(method, self.network, shapes, size, local)
        stride = method.stride(self.network)
        walks = [
            DeviceProgram(
                name=f"walk at {one.size[0]} x {one.size[1]}, {ASSUMED_LABELS} labels (assumed)",
                lower=walk_lowering(self, one.size, stride, local),
                images=shardable(one.images, local),
                asked=one.images,
                executions=one.executions,
                devices=local.devices.size,
                remarks=size_remarks(size),
            )
            for one in shapes
        ]
        return [*networks, *walks]

    def crf_labels(self, classes: int) -> int:
        """None without a CRF; see `CrfStage`."""
        return super().crf_labels(classes) if self.crf else 0

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``, ``walked`` (the number that this run did), ``images_per_second``, the
          settings, with a CRF the metrics of `CrfStage.on_images_with_crf`, and what this process's
          masks show (see `MaskCounts.metrics`).

        Raises:
          UserError: a CAM file is missing, damaged or of another size than its image.
        """
        alpha = resolved_alpha(self.alpha, "alpha", inputs)
        walks_too = self.network == "affinity"
        source = ctx.source(self.split)
        cams = CamFolder(inputs["cams"] / "cams", source.ids)
        network = load_network(inputs["checkpoint"], len(source.classes), self.network)
        walks = Walks(source, cams, network, self, alpha if walks_too else None)
        threshold = None if walks_too else self.threshold
        background = {"alpha": alpha} if walks_too else {"threshold": self.threshold}
        if self.background:
            background = {"background": self.background}
        crf = part(self, CrfSettings) if self.crf else None

        def task(job: Prepared, walk: Walk) -> WalkTask:
            image = job.encoded if crf else b""
            return WalkTask(source.ids[job.position], walk, threshold, image, crf)

        work = ImageWork(
            files=("walk/{id}.npz", "masks/{id}.png", CONFIDENCE_FOLDER + "/{id}.png"),
            prepare=walks.prepare,
            plan=walks.plan.batches,
            on_device=lambda batch, jobs: (
                (job.position, task(job, walk)) for job, walk in walks.on_device(batch, jobs)
            ),
            sizes=source.sizes,
            finish=write_walk_and_mask,
            processes=self.workers if self.crf else None,
            process_bytes=self.crf_bytes(source.sizes, len(source.classes)),
        )
        counts = MaskCounts(source)
        done, crf_metrics = self.on_images_with_crf(ctx, source, work, "random walk", counts.add)
        counts.add_kept(ctx, done)
        return {
            "images": len(source),
            "walked": done.made,
            "images_per_second": done.images_per_second,
            "network": self.network,
            **background,
            "beta": self.beta,
            "steps": self.steps,
            "crf": self.crf,
            **crf_metrics,
            **counts.metrics(ctx, "the maps, or the background, may be worthless"),
        }
