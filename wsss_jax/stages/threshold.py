"""The stage that chooses the background threshold of activation maps without ground truth."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wsss_jax.data.formats.cam_files import CamFolder, image_and_cams
from wsss_jax.data.threads import thread_pool
from wsss_jax.errors import UserError, first
from wsss_jax.host.contrast import color_separation
from wsss_jax.scoring import score_files
from wsss_jax.settings.limits import check_limits
from wsss_jax.stages.base import Context, Stage

_MANY_EMPTY = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Threshold(Stage):
    """Chooses the background threshold of activation maps without ground truth.

    It reads ``cams/`` of the need ``cams`` and chooses the threshold with the largest mean
    `color_separation`, at which the outlines of the maps follow the colors of the images best.
    Other stages refer to it as ``from:NEED``. Only the first process does this.

    Attributes:
      split: the split whose maps are used.
      images: the number of images of the split that are drawn with the recipe's seed.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"cams": ("cams/",)}
    outputs: ClassVar[tuple[str, ...]] = ("metrics.json",)

    split: str
    images: int = 500

    def __post_init__(self) -> None:
        """Checks the number of images.

        Raises:
          UserError: there are none.
        """
        super().__post_init__()
        check_limits(self, images=(1, math.inf))

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``best_threshold``, ``threshold_choice`` (``contrast``), ``thresholds`` and
          ``separation_curve``, ``images``, and ``warnings`` if there are any.

        Raises:
          UserError: a CAM file is missing, damaged or of another size than its image, or all maps
            are empty.
        """
        if ctx.process_index != 0:
            return {}
        source = ctx.source(self.split)
        count = min(self.images, len(source))
        drawn = np.random.default_rng(ctx.seed).choice(len(source), count, replace=False)
        folder = inputs["cams"] / "cams"
        indices = sorted(map(int, drawn))
        cams = CamFolder(folder, [source.ids[index] for index in indices])

        def separation(index: int) -> tuple[np.ndarray, int, int]:
            """Returns the curve of an image, and its numbers of maps and of those without any."""
            record, path = source[index], cams[source.ids[index]]
            image, keys, cam = image_and_cams(
                record["image"], record["id"], path, len(source.classes)
            )
            if len(keys) == 0:
                return np.zeros(len(score_files.THRESHOLDS)), 0, 0
            empty = int((cam.max((1, 2)) <= 0).sum())
            curve = color_separation(image, cam.max(0), score_files.THRESHOLDS)
            return curve, len(keys), empty

        total = np.zeros(len(score_files.THRESHOLDS))
        maps = empty = 0
        names: list[str] = []
        with ctx.progress(count, ctx.stage) as progress, thread_pool() as pool:
            results = zip(indices, pool.map(separation, indices), strict=True)
            for index, (one, count_one, empty_one) in results:
                total += one
                maps, empty = maps + count_one, empty + empty_one
                names += [source.ids[index]] if empty_one else []
                progress.update()
        if not maps:
            raise UserError(
                f"expected images with classes in the split {self.split}, found none among the"
                f" {count} that were drawn: check the labels"
            )
        if empty == maps:
            raise UserError(
                f"expected maps with responses in {folder}, found all {maps} of {count} images"
                " empty: the classifier has learned nothing; lower its learning rate or train it"
                " for more epochs"
            )
        warnings = []
        if empty > _MANY_EMPTY * maps:
            warnings.append(
                ctx.warn(
                    f"{empty} of {maps} maps are empty ({first(names)}); the classifier may have"
                    " learned little"
                )
            )
        best = score_files.THRESHOLDS[int(total.argmax())]
        ctx.log(f"threshold {best:.2f}, chosen on {count} images without ground truth")
        return {
            "best_threshold": best,
            "threshold_choice": "contrast",
            "thresholds": list(score_files.THRESHOLDS),
            "separation_curve": (total / count).tolist(),
            "images": count,
            **({"warnings": warnings} if warnings else {}),
        }
