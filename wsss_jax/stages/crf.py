"""Refines class activation maps by a dense CRF: ``crf/<id>.npz``."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wsss_jax.data.formats.cam_files import image_and_cams
from wsss_jax.data.formats.crf_files import write_crf
from wsss_jax.errors import UserError
<<<<<<< HEAD
from wsss_jax.host.dense_crf import CrfSettings, DenseCrf, score_unary
from wsss_jax.ops.background import with_background
from wsss_jax.stages.base import Context, Needs, Stage
=======
from wsss_jax.host.background import with_background
from wsss_jax.host.dense_crf import PSA, CrfSettings, DenseCrf, crf_settings, score_unary
from wsss_jax.stages.base import Context, Needs, expect
>>>>>>> c8fcf65 (Interpolation matrices and backgrounds of NumPy lie in the host room)
from wsss_jax.stages.crf_work import Task, on_all_images
from wsss_jax.stages.references import check_alpha, resolved_alpha


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crf(CrfSettings, Stage):
    """Refines class activation maps by a dense CRF: ``crf/<id>.npz``.

    Reads ``cams/`` of the need ``cams``. For each image and α the CRF starts from the background
    (1 − max)^α and the maps in the image's file, as PSA and SEAM do (see
    `wsss_jax.data.formats.crf_files` for what is written). Finished images are kept. Processes
    share the images, and each hands its part to worker processes.

    Attributes:
      split: images to refine the maps of.
      alphas: multiples of `alpha_unit`, above 0; each has its own result and gives it its name.
      alpha_unit: its products with `alphas` are the exponents of the background (1 − max)^α. A
        number, or ``from:NEED``: the α that meets the threshold of that stage.
      workers: processes; 0: one for each core.
    """

    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {"cams": ("cams/",)}
    outputs: ClassVar[tuple[str, ...]] = ("crf/",)
    no_effect: ClassVar[frozenset[str]] = frozenset({"workers"})

    split: str
    alphas: tuple[float, ...] = (4.0, 24.0)
    alpha_unit: float | str = 1.0
    workers: int = 0

    def __post_init__(self) -> None:
        """Checks the exponents.

        Raises:
          UserError: there are none, or one that makes no sense.
        """
        super().__post_init__()
        if not self.alphas or not all(0 < alpha < math.inf for alpha in self.alphas):
            raise UserError(f"expected alphas above 0, such as (4, 24), found {self.alphas}")

    def check(self, needs: Needs) -> None:
        """Refuses what cannot work; see `Stage`."""
        super().check(needs)
        check_alpha(self.alpha_unit, "alpha_unit", needs)

    def run(self, ctx: Context, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Runs the stage; see `Stage`.

        Returns:
          ``images``; ``refined``, how many this run did; ``workers`` and ``images_per_second`` of
          this process (None when nothing was left to do); ``alphas``; ``alpha_unit``, a number.

        Raises:
          UserError: a CAM file is missing, damaged or of another size than its image.
        """
        unit = resolved_alpha(self.alpha_unit, "alpha_unit", inputs)
        how = dataclasses.replace(self, alpha_unit=unit)
        cams = inputs["cams"] / "cams"
        work = on_all_images(
            ctx, self.split, self.workers, cams, refine_file, how, "crf/*.npz", "CRF"
        )
        return {
            "images": work.images,
            "refined": work.done,
            "workers": work.workers,
            "images_per_second": work.images_per_second,
            "alphas": list(self.alphas),
            "alpha_unit": unit,
        }


def expect_alpha(needs: Needs, name: str, alpha: float) -> None:
    """Refuses an α that the crf stage of the need `name` has no result for.

    Raises:
      UserError: see above.
    """
    need = needs[name]
    if isinstance(need.stage, Crf) and alpha not in need.stage.alphas:
        made = ", ".join(f"{one:g}" for one in need.stage.alphas)
        raise UserError(
            f"expected one of the alphas of {need.name}, {made}, found {alpha:g}: change one of"
            " them"
        )


def refine_file(task: Task[Crf]) -> None:
    """Does one image, in a worker process.

    Raises:
      UserError: see `Crf.run`.
    """
    image, keys, scores = image_and_cams(task.image, task.image_id, task.cams, task.num_classes)
    how = task.how
    try:
        crf = DenseCrf(image, gaussian=how.gaussian, bilateral=how.bilateral, fast=how.fast)
    except ValueError as error:
        raise UserError(f"CRF of image {task.image_id}: {error}") from error
    results = {}
    for multiple in how.alphas:
        unary = score_unary(with_background(scores, multiple * float(how.alpha_unit)))
        q = crf.infer(np.moveaxis(unary, 0, 2), how.iterations)
        results[multiple] = np.moveaxis(q, 2, 0)
    write_crf(task.target, keys, results)
