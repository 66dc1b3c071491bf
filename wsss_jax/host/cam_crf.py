"""Refines class activation maps with a dense CRF, in worker processes that do not import JAX."""

import dataclasses
from pathlib import Path

import numpy as np

from wsss_jax.data.formats.cam_files import image_and_cams
from wsss_jax.data.formats.crf_files import write_crf
from wsss_jax.host.background import with_background
from wsss_jax.host.dense_crf import (
    CrfSettings,
    HostMeanField,
    MakeMeanField,
    crf_of,
    score_unary,
)


@dataclasses.dataclass(frozen=True)
class CamTask:
    """One image: its id, the encoded image, its CAM file, and the number of foreground classes."""

    image_id: str
    image: bytes
    cams: Path
    num_classes: int


def refine_cams(
    how: CrfSettings,
    alphas: tuple[float, ...],
    alpha_unit: float,
    task: CamTask,
    paths: tuple[Path, ...],
    mean_field: MakeMeanField = HostMeanField,
) -> None:
    """Writes the results of CRFs that start from the maps and their background.

    Each of `alphas` is a multiple of `alpha_unit` and gives one background and one CRF.

    Raises:
      UserError: the image or its CAM file is damaged, they differ in size, or the settings of the
        CRF do not fit the image.
    """
    image, keys, scores = image_and_cams(task.image, task.image_id, task.cams, task.num_classes)
    crf = crf_of(image, task.image_id, how, mean_field)
    results = {}
    for multiple in alphas:
        unary = score_unary(with_background(scores, multiple * alpha_unit))
        q = crf.infer(np.moveaxis(unary, 0, 2), how.iterations)
        results[multiple] = np.moveaxis(q, 2, 0)
    write_crf(paths[0], keys, results)
