"""Refines class activation maps by a dense CRF: ``crf/<id>.npz``."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from wsss_jax.data.formats.cam_files import image_and_cams
from wsss_jax.data.formats.crf_files import write_crf
from wsss_jax.errors import UserError
from wsss_jax.host.dense_crf import PSA, CrfSettings, DenseCrf, crf_settings, score_unary
from wsss_jax.ops.background import with_background
from wsss_jax.stages.base import Context, Needs, expect
from wsss_jax.stages.crf_work import Task, on_all_images
from wsss_jax.stages.references import check_alpha, resolved_alpha


@dataclasses.dataclass(frozen=True)
class Refinement:
    """How maps are refined.

    Attributes:
      alphas: multiples of `alpha_unit`, above 0; each has its own result.
      alpha_unit: their products with it are the exponents of the background (1 − max)^α.
      crf: widths, weights and iterations.
      fast: half the resolution, see `DenseCrf`.
    """

    alphas: tuple[float, ...] = (4.0, 24.0)
    alpha_unit: float = 1.0
    crf: CrfSettings = PSA
    fast: bool = False

    def __post_init__(self) -> None:
        """Checks the exponents.

        Raises:
          UserError: there are none, or one that makes no sense.
        """
        if not self.alphas or not all(0 < alpha < np.inf for alpha in self.alphas):
            raise UserError(f"expected alphas above 0, such as (4, 24), found {self.alphas}")
        if not 0 < self.alpha_unit < np.inf:
            raise UserError(f"expected alpha_unit above 0, found {self.alpha_unit:g}: change it")


MAKES = ("crf/",)


def check(config: ConfigDict, needs: Needs) -> None:
    """Refuses what cannot work; see `wsss_jax.stages.base`."""
    expect(needs, "cams", "cams/")
    values: dict[str, Any] = config.to_dict()
    _refinement(values, check_alpha(values.get("alpha_unit", 1.0), needs))


def _refinement(values: dict[str, Any], unit: float) -> Refinement:
    return Refinement(
        alphas=tuple(float(alpha) for alpha in values.get("alphas", Refinement.alphas)),
        alpha_unit=unit,
        crf=crf_settings(values),
        fast=bool(values.get("fast", False)),
    )


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Reads ``cams/`` of the need ``cams``. For each image and α the CRF starts from the background
    (1 − max)^α and the maps in the image's file, as PSA and SEAM do (for what is written see
    `wsss_jax.data.formats.crf_files`). Finished images are kept. Processes share the
    images, and each hands its part to worker processes.

    Settings: ``split``; ``alphas``, and ``alpha_unit`` (1), which they are multiples of: a number,
    or ``from:NEED`` (see `wsss_jax.stages.references.resolved_alpha`); results go by ``alphas``.
    ``gaussian`` (sxy, weight), ``bilateral`` (sxy, srgb, weight) and ``iterations`` (see
    `CrfSettings`; PSA's by default); ``fast`` (half resolution, see `DenseCrf`); ``workers`` (0:
    one for each core), which does not change the results.

    Returns:
      ``images``; ``refined``, how many this run did; ``workers`` and ``images_per_second`` of this
      process (None when nothing was left to do).

    Raises:
      UserError: a CAM file is missing, damaged or of another size than its image, or the settings
        make no sense.
    """
    values: dict[str, Any] = config.to_dict()
    how = _refinement(values, resolved_alpha(values.get("alpha_unit", 1.0), inputs))
    cams = inputs["cams"] / "cams"
    work = on_all_images(ctx, values, cams, refine_file, how, "crf/*.npz", "CRF")
    return {
        "images": work.images,
        "refined": work.done,
        "workers": work.workers,
        "images_per_second": work.images_per_second,
        "alphas": list(how.alphas),
        "alpha_unit": how.alpha_unit,
    }


def refine_file(task: Task[Refinement]) -> None:
    """Does one image, in a worker process.

    Raises:
      UserError: see `run`.
    """
    image, keys, scores = image_and_cams(task.image, task.image_id, task.cams, task.num_classes)
    how = task.how.crf
    try:
        crf = DenseCrf(image, gaussian=how.gaussian, bilateral=how.bilateral, fast=task.how.fast)
    except ValueError as error:
        raise UserError(f"CRF of image {task.image_id}: {error}") from error
    results = {}
    for multiple in task.how.alphas:
        unary = score_unary(with_background(scores, multiple * task.how.alpha_unit))
        q = crf.infer(np.moveaxis(unary, 0, 2), how.iterations)
        results[multiple] = np.moveaxis(q, 2, 0)
    write_crf(task.target, keys, results)
