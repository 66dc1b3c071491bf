"""Refines class activation maps by a dense CRF: ``crf/<id>.npz``."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8
from ml_collections import ConfigDict

from wsss_jax import scoring
from wsss_jax.context import Context
from wsss_jax.data.cam_files import find_cams, read_cams
from wsss_jax.data.crf_files import write_crf
from wsss_jax.data.images import decode_image
from wsss_jax.errors import UserError
from wsss_jax.ops.dense_crf import PSA, CrfSettings, DenseCrf, score_unary
from wsss_jax.workers import in_processes, worker_count


@dataclasses.dataclass(frozen=True)
class Task:
    """One image for a worker: encoded `image`, its CAM file, and where the result goes."""

    image_id: str
    image: bytes
    cams: Path
    target: Path
    num_classes: int
    alphas: tuple[float, ...]
    settings: CrfSettings
    fast: bool


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Reads ``cams/`` of the need ``cams``. For each image and α the CRF starts from the background
    (1 − max)^α and the maps in the image's file, as PSA and SEAM do (see `wsss_jax.data.crf_files`
    for what is written). Finished images are kept. Processes share the images, and each hands
    its part to worker processes.

    Settings: ``split``; ``alphas``; ``gaussian`` (sxy, weight), ``bilateral`` (sxy, srgb, weight)
    and ``iterations`` (see `CrfSettings`; PSA's by default); ``fast`` (half resolution, see
    `DenseCrf`); ``workers`` (0: one for each core), which does not change the results.

    Returns:
      ``images``; ``refined``, how many this run did; ``workers`` and ``images_per_second`` of this
      process (None when nothing was left to do).

    Raises:
      UserError: a CAM file is missing, damaged or of another size than its image, or the settings
        make no sense.
    """
    values: dict[str, Any] = config.to_dict()
    alphas, settings = _alphas(values), crf_settings(values)
    source = ctx.source(values["split"])
    folder = inputs["cams"] / "cams"
    found = {name: find_cams(folder, name) for name in source.ids}
    missing = [name for name, path in found.items() if path is None]
    scoring.check_all_found("CAM file", missing, len(source.ids), folder)
    results = ctx.stage_dir / "crf"
    results.mkdir(exist_ok=True)
    mine = range(ctx.process_index, len(source), ctx.process_count)
    left = [i for i in mine if not (results / f"{source.ids[i]}.npz").is_file()]
    workers = worker_count(int(values.get("workers", 0)), len(left))

    def tasks() -> Iterator[Task]:
        for index in left:
            name = source.ids[index]
            path = found[name]
            assert path is not None
            yield Task(
                image_id=name,
                image=source[index]["image"],
                cams=path,
                target=results / f"{name}.npz",
                num_classes=len(source.classes),
                alphas=alphas,
                settings=settings,
                fast=bool(values.get("fast", False)),
            )

    start = time.monotonic()
    done = len(mine) - len(left)
    with ctx.progress(len(mine), f"CRF of {values['split']}", initial=done) as progress:
        for _ in in_processes(refine_file, tasks(), workers):
            progress.update()
    seconds = time.monotonic() - start
    return {
        "images": len(source),
        "refined": len(left),
        "workers": workers,
        "images_per_second": len(left) / seconds if left else None,
        "alphas": list(alphas),
    }


def refine_file(task: Task) -> None:
    """Does one image, in a worker process.

    Raises:
      UserError: see `run`.
    """
    image, keys, scores = image_and_scores(task.image, task.image_id, task.cams, task.num_classes)
    how = task.settings
    try:
        crf = DenseCrf(image, gaussian=how.gaussian, bilateral=how.bilateral, fast=task.fast)
    except ValueError as error:
        raise UserError(f"CRF of image {task.image_id}: {error}") from error
    results = {}
    for alpha in task.alphas:
        unary = score_unary(with_background(scores, alpha))
        q = crf.infer(np.moveaxis(unary, 0, 2), how.iterations)
        results[alpha] = np.moveaxis(q, 2, 0)
    write_crf(task.target, keys, results)


def image_and_scores(
    data: bytes, image_id: str, cams: Path, num_classes: int
) -> tuple[UInt8[np.ndarray, "h w 3"], Int32[np.ndarray, " k"], Float32[np.ndarray, "k h w"]]:
    """An image, and the classes and maps of its CAM file.

    Raises:
      UserError: one of the two is damaged, or their sizes differ.
    """
    image = decode_image(data, image_id)
    keys, cam = read_cams(cams, num_classes)
    height, width = image.shape[:2]
    if len(keys) == 0:  # an empty file may not know the image's size
        cam = np.zeros((0, height, width), np.float32)
    cam_height, cam_width = cam.shape[1:]
    if (height, width) != (cam_height, cam_width):
        raise UserError(
            f"{cams}: expected maps of {width}×{height} pixels as image {image_id} has,"
            f" found {cam_width}×{cam_height}; make them from the same images"
        )
    return image, keys, cam.astype(np.float32)


def with_background(
    scores: Float32[np.ndarray, "k h w"], alpha: float | int
) -> Float[np.ndarray, "labels h w"]:
    """The scores behind their background (1 − max)^alpha, which is 1 where there are none."""
    strongest = scores.max(0, initial=0)
    background = np.power(1 - np.clip(strongest, 0, 1), np.float32(alpha))
    return np.concatenate([background[None], scores])


def _alphas(values: dict[str, Any]) -> tuple[float, ...]:
    alphas = tuple(float(alpha) for alpha in values.get("alphas", (4, 24)))
    if not alphas or not all(0 < alpha < np.inf for alpha in alphas):
        raise UserError(f"expected alphas above 0, such as (4, 24), found {alphas}")
    return alphas


def crf_settings(values: dict[str, Any], default: CrfSettings = PSA) -> CrfSettings:
    """`default` with the values of a stage's ``gaussian``, ``bilateral`` and ``iterations``.

    Raises:
      UserError: they make no sense.
    """
    gaussian = tuple(values.get("gaussian", default.gaussian))
    bilateral = tuple(values.get("bilateral", default.bilateral))
    iterations = int(values.get("iterations", default.iterations))
    if len(gaussian) != 2 or len(bilateral) != 3 or iterations < 0:
        raise UserError(
            "expected gaussian (sxy, weight), bilateral (sxy, srgb, weight) and iterations of at"
            f" least 0, found {gaussian}, {bilateral} and {iterations}"
        )
    widths, weights = (gaussian[0], *bilateral[:2]), (gaussian[1], bilateral[2])
    if not (all(width > 0 for width in widths) and all(weight >= 0 for weight in weights)):
        raise UserError(
            f"expected CRF widths above 0 and weights of at least 0, found gaussian {gaussian} and"
            f" bilateral {bilateral}"
        )
    return CrfSettings(gaussian, bilateral, iterations)
