"""Chooses the background threshold of activation maps without any ground truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from wsss_jax.data.formats.cam_files import all_cams, image_and_cams
from wsss_jax.data.threads import thread_pool
from wsss_jax.errors import UserError
from wsss_jax.ops.contrast import color_separation
from wsss_jax.scoring import score_files
from wsss_jax.stages.base import Context, Needs, expect

MAKES = ("metrics.json",)


def check(config: ConfigDict, needs: Needs) -> None:
    """Refuses what cannot work; see `wsss_jax.stages.base`."""
    expect(needs, "cams", "cams/")
    _images(config.to_dict())


def _images(settings: Mapping[str, Any]) -> int:
    count = int(settings.get("images", 500))
    if count < 1:
        raise UserError(f"expected images of at least 1, found {count}: change it")
    return count


def run(ctx: Context, config: ConfigDict, inputs: dict[str, Path]) -> dict[str, Any]:
    """Runs the stage; see `wsss_jax.stages`.

    Takes ``cams/`` of the need ``cams`` and keeps the threshold with the greatest mean
    `color_separation`: there the maps' outlines follow the colours of the images best. Other
    stages refer to it as ``from:NEED``. Settings: ``split``; ``images`` (500; so many are drawn
    with the config's seed). The first process does it.

    Returns:
      ``best_threshold``, ``threshold_choice`` (``contrast``), ``thresholds`` and
      ``separation_curve``, ``images``.

    Raises:
      UserError: a CAM file is missing, damaged or of another size than its image.
    """
    if ctx.process_index != 0:
        return {}
    settings: dict[str, Any] = config.to_dict()
    source = ctx.source(settings["split"])
    whole: Any = ctx.config
    count = min(_images(settings), len(source))
    drawn = np.random.default_rng(int(whole.seed)).choice(len(source), count, replace=False)
    folder = inputs["cams"] / "cams"
    indices = sorted(map(int, drawn))
    found = all_cams(folder, [source.ids[index] for index in indices])

    def separation(index: int) -> np.ndarray:
        record, path = source[index], found[source.ids[index]]
        image, keys, cam = image_and_cams(record["image"], record["id"], path, len(source.classes))
        if len(keys) == 0:
            return np.zeros(len(score_files.THRESHOLDS))
        return color_separation(image, cam.max(0), score_files.THRESHOLDS)

    total = np.zeros(len(score_files.THRESHOLDS))
    with ctx.progress(count, ctx.stage) as progress, thread_pool() as pool:
        for one in pool.map(separation, indices):
            total += one
            progress.update()
    best = score_files.THRESHOLDS[int(total.argmax())]
    ctx.log(f"threshold {best:.2f}, chosen on {count} images without ground truth")
    return {
        "best_threshold": best,
        "threshold_choice": "contrast",
        "thresholds": list(score_files.THRESHOLDS),
        "separation_curve": (total / count).tolist(),
        "images": count,
    }
