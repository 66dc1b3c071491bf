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
from wsss_jax.stages.per_image import ImageWork, PerImageStage


@dataclasses.dataclass(frozen=True, kw_only=True)
class IrnLabels(HardLabels, PerImageStage):
    """Makes the labels that IRNet learns from: ``masks/<id>.png``, 255 where they are not certain.

    It reads ``cams/`` of the need ``cams``. `wsss_jax.host.hard_labels` explains the labels.

    Attributes:
      workers: the number of processes, or 0 for one per core.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"cams": ("cams/",)}
    outputs: ClassVar[tuple[str, ...]] = ("masks/",)
    no_effect: ClassVar[frozenset[str]] = frozenset({"workers"})

    workers: int = 0

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``; ``labeled``, the number that this run did; ``images_per_second`` of this
          process (None if nothing was left to do); and the settings.

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
        )
        done = self.on_images(ctx, source, work, "labels")
        return {
            "images": len(source),
            "labeled": done.made,
            "images_per_second": done.images_per_second,
            "foreground": self.foreground,
            "background": self.background,
            "confidence": self.confidence,
        }
