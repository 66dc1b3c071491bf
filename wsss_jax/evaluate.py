"""The command line that scores a folder of masks or CAM files against ground-truth masks.

    python -m wsss_jax.evaluate --pred DIR --gt DIR --list FILE [--json OUT]
    python -m wsss_jax.evaluate --pred CAMS --gt DIR --list FILE --curve

Predictions are PNGs of class indices with a palette or in gray, or CAM files (our .npz, SEAM's and
IRN's .npy) with `--threshold` or `--curve`. Mistakes are reported in one line, with exit status 2.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wsss_jax import command_line
from wsss_jax.command_line import Parser
from wsss_jax.data.class_names import read_classes
from wsss_jax.data.formats.id_lists import read_list
from wsss_jax.errors import UserError
from wsss_jax.files import write_json
from wsss_jax.scoring.folders import evaluate, has_file
from wsss_jax.scoring.tables import class_table

_JSON_KEYS = ("miou", "iou", "precision", "recall", "pixel_accuracy", "images")
_BOUNDARY_KEYS = ("boundary_miou", "boundary_iou")
_CURVE_KEYS = ("thresholds", "miou_curve", "best_threshold")


_EXAMPLES = (
    (
        "masks of PASCAL VOC",
        "--pred MASKS --gt VOC2012/SegmentationClass \\\n"
        "        --list VOC2012/ImageSets/Segmentation/val.txt --json scores.json",
    ),
    (
        "maps, at one threshold of the background",
        "--pred CAMS --gt VOC2012/SegmentationClass \\\n        --list train.txt --threshold 0.25",
    ),
    (
        "maps, at all thresholds",
        "--pred CAMS --gt VOC2012/SegmentationClass \\\n        --list train.txt --curve",
    ),
)


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status."""
    return command_line.run(_parser(), argv, _run)


def _run(options: argparse.Namespace) -> int:
    if options.ignore_as_background and (options.curve or options.threshold is not None):
        raise UserError(
            "expected masks with --ignore_as_background, found CAM files: leave the flag out"
        )
    folders = (options.gt, options.pred)
    result = evaluate(
        options.pred,
        options.gt,
        read_list(options.list, lambda image_id: has_file(folders, image_id)),
        read_classes(options.classes),
        options.protocol,
        options.threshold,
        options.curve,
        options.ignore_as_background,
        options.foreground,
    )
    print(class_table(result))
    print(f"mIoU {100 * result['miou']:.2f}  ({result['images']} images, {options.protocol})")
    if options.curve:
        print(f"best threshold {result['best_threshold']:.2f}")
    if options.json:
        keys = _JSON_KEYS + (_CURVE_KEYS if options.curve else _BOUNDARY_KEYS)
        write_json(options.json, {key: result[key] for key in keys if key in result})
    return 0


def _parser() -> Parser:
    parser = Parser(
        "wsss_jax.evaluate",
        "Scores a folder of masks or CAM files against ground-truth masks (mIoU).",
        usage="--pred DIR --gt DIR --list FILE [options]",
        examples=_EXAMPLES,
        goes_on=False,
    )
    add = parser.add_argument_group("what is scored").add_argument
    add(
        "--pred",
        type=Path,
        required=True,
        metavar="DIR",
        help="masks (.png, palette or gray) or CAM files (.npz; .npy of SEAM or IRN)",
    )
    add("--gt", type=Path, required=True, metavar="DIR", help="ground-truth masks (.png)")
    add("--list", type=Path, required=True, metavar="FILE", help="the ids to score, one per line")
    add("--classes", default="voc", metavar="FILE", help="class names, one per line (VOC's)")
    add(
        "--foreground",
        type=command_line.whole_number,
        default=0,
        metavar="V",
        help="the value of masks that stands for the only class, such as 255 (0: class indices)",
    )
    add = parser.add_argument_group("how it is scored").add_argument
    add(
        "--threshold",
        type=command_line.number,
        metavar="T",
        help="for CAM files: the score of the background",
    )
    add("--curve", action="store_true", help="for CAM files: all thresholds 0, 0.01 to 0.99")
    add(
        "--protocol",
        **command_line.one_of("strict", "present"),
        default="strict",
        help="absent classes count as 0 (strict, the default) or are left out of means (present)",
    )
    add(
        "--ignore_as_background",
        action="store_true",
        help="for masks: a predicted 255 counts as background instead of being refused",
    )
    add = parser.add_argument_group("results").add_argument
    add("--json", type=Path, metavar="OUT", help="write the scores there, fractions 0 to 1")
    return parser


def cli() -> None:
    """Runs the program ``wsss-jax-evaluate``."""
    sys.exit(main(sys.argv))


if __name__ == "__main__":
    cli()
