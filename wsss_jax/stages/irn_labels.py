"""The stage that makes IRNet's labels: ``masks/<id>.png``, 255 where they are not certain."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from wsss_jax.host.hard_labels import HardLabels, label_cams
from wsss_jax.settings import part
from wsss_jax.stages.base import Context
from wsss_jax.stages.crf import cam_tasks
from wsss_jax.stages.crf_stage import CrfStage
from wsss_jax.stages.per_image import ImageWork


@dataclasses.dataclass(frozen=True, kw_only=True)
class IrnLabels(HardLabels, CrfStage):
    """Makes the labels that IRNet learns from: ``masks/<id>.png``, 255 where they are not certain.

    It reads ``cams/`` of the need ``cams``. `wsss_jax.host.hard_labels` explains the labels.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"cams": ("cams/",)}
    outputs: ClassVar[tuple[str, ...]] = ("masks/",)

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``; ``labeled``, the number that this run did; ``images_per_second`` of this
          process (None if nothing was left to do); the metrics of `CrfStage.on_images_with_crf`;
          and the settings.

        Raises:
          UserError: a CAM file is missing, damaged or of another size than its image.
        """
        source = ctx.source(self.split)
        label = functools.partial(label_cams, part(self, HardLabels))
        work = ImageWork(
            files=("masks/{id}.png",),
            prepare=cam_tasks(source, inputs["cams"]),
            finish=label,
            processes=self.workers,
            process_bytes=self.crf_bytes(source.sizes, len(source.classes)),
        )
        done, crf = self.on_images_with_crf(ctx, source, work, "labels")
        return {
            "images": len(source),
            "labeled": done.made,
            "images_per_second": done.images_per_second,
            **crf,
            "foreground": self.foreground,
            "background": self.background,
            "confidence": self.confidence,
        }
