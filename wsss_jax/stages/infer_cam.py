"""The stage that makes activation maps over scales and flips: ``cams/<id>.npz``."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Shaped

from wsss_jax.accelerators.programs import DeviceProgram
from wsss_jax.data.formats.cam_files import write_cams
from wsss_jax.data.source import Source
from wsss_jax.host.normalization import normalized
from wsss_jax.host.upsampling import Reduced, ViewMaps
from wsss_jax.inference.multi_scale import MultiScale, NetworkMaps
from wsss_jax.inference.network import Network, load_network
from wsss_jax.stages.base import Context, Needs, SplitSize, expect_prediction
from wsss_jax.stages.network_programs import (
    MOST_LABELS,
    multi_scale_programs,
    trained_method,
)
from wsss_jax.stages.per_image import ImageWork, PerImageStage


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
        """The network in every padded shape, and sums of its maps; see `Stage`."""
        size = sizes.get(self.split)
        method = trained_method(needs, size)
        return multi_scale_programs(self, method, self.output, size, mesh, MOST_LABELS)

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
        maps = self.maps(source, network)
        done = self.on_images(ctx, source, self.work(source, maps), "maps")
        return {
            "images": len(source),
            "inferred": done.made,
            "scales": list(self.scales),
            "flip": self.flip,
            "output": self.output,
            "buckets": [[list(size) for size in bucket] for bucket in maps.plan.buckets],
            "padding": maps.plan.padding(),
        }

    def maps(self, source: Source, network: Network, multiple: int = 1) -> NetworkMaps:
        """Returns the maps of the images of `source`, which the device normalizes if it sums.

        The number `multiple` divides the padded sides of images; see `NetworkMaps`.
        """

        def reduce(total: Array, inside: Array) -> Array:
            return normalized(total, self.normalize, inside, jnp).astype(jnp.float16)

        return NetworkMaps(source, network, self, np.flatnonzero, reduce, multiple)

    def cam(self, made: ViewMaps | Reduced) -> Shaped[np.ndarray, "k h w"]:
        """Returns the normalized maps of an image."""
        on_device = isinstance(made, Reduced)
        return made.values if on_device else normalized(made.summed(), self.normalize)

    def work(self, source: Source, maps: NetworkMaps) -> ImageWork[None]:
        """Returns the work that writes normalized maps of the images of `source`."""

        def finish(made: ViewMaps | Reduced, paths: tuple[Path, ...]) -> None:
            write_cams(paths[0], made.channels, self.cam(made))

        return ImageWork(
            files=("cams/{id}.npz",),
            prepare=maps.prepare,
            plan=maps.plan.batches,
            # A generator expression calls `maps.on_device`, which starts the batch, at once.
            on_device=lambda batch, jobs: (
                (job.position, views) for job, views in maps.on_device(batch, jobs)
            ),
            sizes=source.sizes,
            finish=finish,
        )
