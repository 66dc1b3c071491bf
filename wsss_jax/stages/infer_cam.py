"""The stage that makes activation maps over scales and flips: ``cams/<id>.npz``."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from wsss_jax.accelerators.programs import DeviceProgram
from wsss_jax.data.formats.cam_files import write_cams
from wsss_jax.host.upsampling import ViewMaps
from wsss_jax.inference.multi_scale import MultiScale, NetworkMaps, load_network
from wsss_jax.stages.base import Context, Needs, SplitSize, expect_prediction
from wsss_jax.stages.network_programs import (
    image_sizes,
    local_mesh,
    network_programs,
    padded_shapes,
    trained_method,
)
from wsss_jax.stages.per_image import ImageWork, PerImageStage

_EPSILON = 1e-5  # as in the published programs


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferCam(MultiScale, PerImageStage):
    """Makes the activation maps of every image over scales and flips: ``cams/<id>.npz``.

    It uses the network of the need ``checkpoint``. Only the classes of an image's label get a map.

    Attributes:
      output: the name of the method's prediction that gives the maps.
      normalize: how the summed maps of each class are normalized to 0…1. ``min_max`` is
        (v − min) / (max − min), as in SEAM; ``max`` is v / max, as in PSA and SSENet.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"checkpoint": ("weights.npz",)}
    outputs: ClassVar[tuple[str, ...]] = ("cams/",)

    output: str = "cam"
    normalize: Literal["min_max", "max"] = "min_max"

    def check(self, needs: Needs) -> None:
        """Refuses what cannot work; see `Stage`."""
        super().check(needs)
        expect_prediction(needs, self.output, "output")

    def programs(
        self, sizes: Mapping[str, SplitSize], needs: Needs, mesh: Mesh
    ) -> list[DeviceProgram]:
        """The network in every padded shape; see `Stage`."""
        size = sizes.get(self.split)
        method = trained_method(needs, size)
        if method is None:
            return []
        local, processes = local_mesh(mesh)
        plan = self.plan(image_sizes(size), method.backbone, local.devices.size)
        shapes = padded_shapes(plan, self.copies, size, processes)
        return network_programs(method, self.output, shapes, size, local)

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``; ``inferred``, the number that this run did; ``buckets``, the padded
          shapes of each bucket at the scales; ``padding``, the padded pixels per pixel of the
          images; and settings.

        Raises:
          UserError: the network is missing, or does not predict `output`.
        """
        source = ctx.source(self.split)
        network = load_network(inputs["checkpoint"], len(source.classes), self.output)
        maps = NetworkMaps(source, network, self, channels=np.flatnonzero)

        def finish(views: ViewMaps, paths: tuple[Path, ...]) -> None:
            write_cams(paths[0], views.channels, normalized(views.summed(), self.normalize))

        work = ImageWork(
            files=("cams/{id}.npz",),
            prepare=maps.prepare,
            plan=maps.plan.batches,
            on_device=lambda batch, jobs: (
                (job.position, views) for job, views in maps.on_device(batch, jobs)
            ),
            sizes=source.sizes,
            finish=finish,
        )
        done = self.on_images(ctx, source, work, "maps")
        return {
            "images": len(source),
            "inferred": done.made,
            "scales": list(self.scales),
            "flip": self.flip,
            "output": self.output,
            "buckets": [[list(size) for size in bucket] for bucket in maps.plan.buckets],
            "padding": maps.plan.padding(),
        }


def normalized(total: Float[np.ndarray, "k h w"], kind: str) -> Float[np.ndarray, "k h w"]:
    """Normalizes summed maps to 0…1; a class without response stays 0.

    ``max`` is v/(max + ε). ``min_max`` is (v − min − ε)/(max − min + ε), or 0 below min + ε.
    """
    cam = np.maximum(total, 0)
    if not len(cam):
        return cam
    high = cam.max((1, 2), keepdims=True)
    if kind == "max":
        return cam / (high + _EPSILON)
    low = cam.min((1, 2), keepdims=True)
    return np.maximum(cam - low - _EPSILON, 0) / (high - low + _EPSILON)
