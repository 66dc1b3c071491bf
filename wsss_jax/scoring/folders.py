"""Scores a folder of masks or CAM files against a folder of ground-truth masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsss_jax.data.class_names import VOC_CLASSES
from wsss_jax.data.formats.cam_files import find_cams
from wsss_jax.data.masks import check_foreground, decode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import check_all_found, read_bytes
from wsss_jax.progress import Progress
from wsss_jax.scoring import score_files


def evaluate(
    pred: Path,
    gt: Path,
    ids: Sequence[str],
    classes: Sequence[str] = VOC_CLASSES,
    protocol: score_files.Protocol = "strict",
    threshold: float | None = None,
    curve: bool = False,
    ignore_as_background: bool = False,
    foreground: int = 0,
) -> dict[str, Any]:
    """Scores the predictions for `ids` and returns JSON with fractions 0…1.

    Args:
      pred: a folder of masks `<id>.png`, or of CAM files `<id>.npz` or `<id>.npy` when `threshold`
        or `curve` is given.
      gt: a folder of ground-truth masks `<id>.png`; pixels of value 255 are not scored.
      ids: the ids of the images to score.
      classes: the names of the foreground classes, in the order of the indices 1…C.
      protocol: whether an absent class counts as 0 (`strict`) or is left out (`present`).
      threshold: the background score for the maps. With `curve` and no threshold, the best
        threshold of the curve is taken.
      curve: whether to score all of `score_files.THRESHOLDS` as well.
      ignore_as_background: whether a predicted 255 counts as background; otherwise it is refused.
      foreground: if above 0, the value of ground-truth masks that stands for the only class.
        Predicted masks may have it too, or the index 1.

    Raises:
      UserError: a folder or a file is missing, a prediction does not fit its ground truth, or no
        pixel of a class is scored.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(
            f"expected a threshold from 0 to 1, as maps have, found {threshold:g}: change it"
        )
    if foreground:
        check_foreground(foreground, len(classes))
    for folder in (pred, gt):
        if not folder.is_dir():
            raise UserError(f"expected a folder at {folder}, found none: check the path")
    of_maps = curve or threshold is not None
    stage_output = pred / ("cams" if of_maps else "masks")  # `pred` may be a stage's folder
    pred = stage_output if stage_output.is_dir() else pred
    find = find_cams if of_maps else _find_mask
    missing = [image_id for image_id in ids if not find(pred, image_id)]
    if not of_maps and len(missing) == len(ids) and any(find_cams(pred, name) for name in ids):
        raise UserError(
            f"expected masks (.png) in {pred}, found CAM files: add --threshold or --curve to score"
            " them"
        )
    check_all_found("CAM file" if of_maps else "mask (.png)", missing, len(ids), pred)
    no_truth = [image_id for image_id in ids if not _find_mask(gt, image_id)]
    check_all_found("mask (.png)", no_truth, len(ids), gt)

    num_classes = len(classes)
    thresholds = score_files.THRESHOLDS if curve else ()
    extra = () if threshold is None else (threshold,)

    def score_one(image_id: str) -> score_files.Counts:
        path, prediction = _find_mask(gt, image_id), find(pred, image_id)
        assert path is not None and prediction is not None
        truth = decode_mask(read_bytes(path), str(path), num_classes, foreground)
        if of_maps:
            return score_files.score_cams(prediction, truth, num_classes, [*thresholds, *extra])
        return score_files.score_mask(
            prediction, truth, num_classes, ignore_as_background, foreground=foreground
        )

    with Progress(len(ids), "evaluate") as progress:
        counts = score_files.score_images(ids, score_one, lambda _: progress.update())
    score_files.check_scored(counts, f"the masks of {gt}")
    result = {"images": len(ids)}
    chosen = -1
    if curve:
        result |= score_files.curve(counts.classes[: len(thresholds)], thresholds, protocol)
        if threshold is None:
            chosen = thresholds.index(result["best_threshold"])
    names = ("background", *classes)
    return result | score_files.summary(counts.classes[chosen], names, protocol, counts.boundary)


def _find_mask(folder: Path, image_id: str) -> Path | None:
    paths = (folder / f"{image_id}{suffix}" for suffix in (".png", ".PNG"))
    return next((path for path in paths if path.is_file()), None)


def has_file(folders: Sequence[Path], image_id: str) -> bool:
    """Returns whether one of the folders of masks or CAM files has a file of an image."""
    return any(_find_mask(folder, image_id) or find_cams(folder, image_id) for folder in folders)
