"""Command line: scores a folder of masks or CAM files against ground-truth masks.

    python -m wsss_jax.evaluate --pred DIR --gt DIR --list FILE [--json OUT]
    python -m wsss_jax.evaluate --pred CAMS --gt DIR --list FILE --curve

Predictions are palette or grey PNGs of class indices, or CAM files (our .npz, SEAM's and IRN's
.npy) with `--threshold` or `--curve`. Mistakes are told in one line, with exit status 2.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from wsss_jax import scoring
from wsss_jax.data.cam_files import find_cams
from wsss_jax.data.class_names import VOC_CLASSES, read_classes
from wsss_jax.data.images import decode_mask
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.progress import Progress
from wsss_jax.score_tables import class_table

_JSON_KEYS = ("miou", "iou", "precision", "recall", "pixel_accuracy", "images")
_BOUNDARY_KEYS = ("boundary_miou", "boundary_iou")
_CURVE_KEYS = ("thresholds", "miou_curve", "best_threshold")


def evaluate(
    pred: Path,
    gt: Path,
    ids: Sequence[str],
    classes: Sequence[str] = VOC_CLASSES,
    protocol: scoring.Protocol = "strict",
    threshold: float | None = None,
    curve: bool = False,
    ignore_as_background: bool = False,
) -> dict[str, Any]:
    """Scores the predictions of `ids`; the result is JSON, fractions 0…1.

    Args:
      pred: folder of `<id>.png` masks, or of `<id>.npz`/`.npy` CAM files when `threshold` or
        `curve` is given.
      gt: folder of `<id>.png` ground-truth masks; 255 is not scored.
      ids: which images.
      classes: foreground names, in the order of the indices 1…C.
      protocol: whether an absent class counts 0 (`strict`) or is left out (`present`).
      threshold: background score of the maps; with `curve` alone the best one is taken.
      curve: score all of `scoring.THRESHOLDS` as well.
      ignore_as_background: predicted 255 counts as background instead of being refused.

    Raises:
      UserError: a folder or file is missing, or a prediction does not fit its ground truth.
    """
    for folder in (pred, gt):
        if not folder.is_dir():
            raise UserError(f"expected a folder at {folder}, found none; check the path")
    of_maps = curve or threshold is not None
    stage_output = pred / ("cams" if of_maps else "masks")  # `pred` may be a stage's folder
    pred = stage_output if stage_output.is_dir() else pred
    find = find_cams if of_maps else _find_mask
    found = {image_id: find(pred, image_id) for image_id in ids}
    if not of_maps and not any(found.values()) and any(find_cams(pred, name) for name in ids):
        raise UserError(f"{pred} has CAM files: choose a --threshold, or --curve")
    missing = [image_id for image_id, path in found.items() if path is None]
    scoring.check_all_found("CAM file" if of_maps else "mask (.png)", missing, len(ids), pred)
    no_truth = [image_id for image_id in ids if not _find_mask(gt, image_id)]
    scoring.check_all_found("mask (.png)", no_truth, len(ids), gt)

    num_classes = len(classes)
    thresholds = scoring.THRESHOLDS if curve else ()
    extra = () if threshold is None else (threshold,)

    def score_one(image_id: str) -> scoring.Counts:
        path = gt / f"{image_id}.png"
        truth = decode_mask(scoring.read_bytes(path), str(path), num_classes)
        prediction = found[image_id]
        assert prediction is not None
        if of_maps:
            return scoring.score_cams(prediction, truth, num_classes, [*thresholds, *extra])
        return scoring.score_mask(prediction, truth, num_classes, ignore_as_background)

    with Progress(len(ids), "evaluate") as progress:
        scored = scoring.score_images(ids, score_one, progress.update)
    result = {"images": len(ids)}
    chosen = -1
    if curve:
        result |= scoring.curve(scored.confusion[: len(thresholds)], thresholds, protocol)
        if threshold is None:
            chosen = thresholds.index(result["best_threshold"])
    names = ("background", *classes)
    return result | scoring.summary(scored.confusion[chosen], names, protocol, scored.boundary)


def read_list(path: Path) -> list[str]:
    """The ids of a list file: one per line, or the published lists' `/JPEGImages/<id>.jpg …`.

    Raises:
      UserError: the file is missing, empty or no text, or lists an id twice.
    """
    try:
        lines = scoring.read_bytes(path).decode().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"expected a text file of ids at {path}, found other bytes") from error
    ids = [_image_id(line.split()[0]) for line in lines if line.strip()]
    if not ids:
        raise UserError(f"expected ids in {path}, found an empty file; give one id per line")
    if len(set(ids)) < len(ids):
        twice = next(name for index, name in enumerate(ids) if name in ids[:index])
        raise UserError(f"expected each id once in {path}, found {twice} twice; remove one")
    return ids


def main(arguments: Sequence[str]) -> int:
    """Runs the command line and returns the exit status: 0, or 2 after a mistake of the user."""
    options = _parser().parse_args(arguments)
    try:
        if options.ignore_as_background and (options.curve or options.threshold is not None):
            raise UserError("--ignore-as-background is for masks, not for CAM files")
        result = evaluate(
            options.pred,
            options.gt,
            read_list(options.list),
            read_classes(options.classes),
            options.protocol,
            options.threshold,
            options.curve,
            options.ignore_as_background,
        )
        print(class_table(result))
        print(f"mIoU {100 * result['miou']:.2f}  ({result['images']} images, {options.protocol})")
        if options.curve:
            print(f"best threshold {result['best_threshold']:.2f}")
        if options.json:
            keys = _JSON_KEYS + (_CURVE_KEYS if options.curve else _BOUNDARY_KEYS)
            write_json(options.json, {key: result[key] for key in keys if key in result})
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _find_mask(folder: Path, image_id: str) -> Path | None:
    path = folder / f"{image_id}.png"
    return path if path.is_file() else None


def _image_id(entry: str) -> str:
    path = PurePosixPath(entry)
    return path.stem if path.suffix.lower() in (".jpg", ".jpeg", ".png") else path.name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wsss_jax.evaluate", description="Score masks or CAM files (mIoU)."
    )
    add = parser.add_argument
    add("--pred", type=Path, required=True, metavar="DIR", help="masks (.png), CAMs (.npz, .npy)")
    add("--gt", type=Path, required=True, metavar="DIR", help="ground-truth masks (.png)")
    add("--list", type=Path, required=True, metavar="FILE", help="the ids to score, one per line")
    add("--json", type=Path, metavar="OUT", help="write the scores there, fractions 0 to 1")
    add("--threshold", type=float, metavar="T", help="CAM files: background score")
    add("--curve", action="store_true", help="CAM files: all thresholds 0, 0.01 … 0.99")
    add(
        "--protocol",
        choices=("strict", "present"),
        default="strict",
        help="absent classes count 0 (strict, the default) or are left out of means (present)",
    )
    add("--classes", default="voc", metavar="FILE", help="class names, one per line (default: voc)")
    add(
        "--ignore-as-background",
        action="store_true",
        help="masks: predicted 255 counts as background instead of being refused",
    )
    return parser


def cli() -> None:
    """Entry point of the program `wsss-jax-evaluate`."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    cli()
