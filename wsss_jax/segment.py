"""Command line: masks of a folder of photographs by the network that a run has trained.

    python -m wsss_jax.segment --workdir runs/light --images PHOTOS --out RESULT

Network, scales and CRF are those of the run's last stage of type predict (`masks_val`, say). Writes
``masks/<name>.png`` (indices with VOC's palette), ``overlays/<name>.jpg`` to look at, and
``segment.json``, which says what they were made with and names the classes. The same command goes
on where it was interrupted, and does images anew that have changed. Damaged images are named and
left out (exit status 1); mistakes are told in one line (exit status 2).
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsss_jax.errors import UserError
from wsss_jax.host.host_memory import share_one_heap
from wsss_jax.inference.photo_folder import find_network, segment
from wsss_jax.pipeline import process


def main(arguments: Sequence[str]) -> int:
    """Runs the command line and returns the exit status, see above."""
    options = _parser().parse_args(arguments)
    try:
        network = find_network(options.workdir, options.stage, options.classes)
        changes: dict[str, Any] = {"workers": options.workers}
        if options.scales:
            changes["scales"] = options.scales
        if options.crf is not None:
            changes["crf"] = options.crf
        network = dataclasses.replace(network, settings=network.settings | changes)
        share_one_heap()
        process.compilation_cache()
        count, skipped = segment(network, options.images, options.out)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished masks are kept, the same command goes on", file=sys.stderr)
        return 130
    for message in skipped:
        print(f"left out: {message}", file=sys.stderr)
    print(f"{count} masks in {options.out / 'masks'}, to look at in {options.out / 'overlays'}")
    return 1 if skipped else 0


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected numbers as 0.75,1, found {text!r}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wsss_jax.segment",
        description="Masks of a folder of photographs by a trained segmentation network.",
    )
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="of the run that trained it")
    add("--images", type=Path, required=True, metavar="DIR", help=".jpg, .jpeg and .png files")
    add("--out", type=Path, required=True, metavar="DIR", help="for masks/ and overlays/")
    add("--stage", default="", metavar="NAME", help="of type predict (default: the last one)")
    add("--scales", type=_scales, metavar="S,S", help="in place of the stage's, such as 0.75,1,1.5")
    add(
        "--crf",
        action=argparse.BooleanOptionalAction,
        help="with or without the final dense CRF, whatever the stage has",
    )
    add("--classes", default="", metavar="FILE", help="class names, where the run lacks them")
    add("--workers", type=int, default=0, metavar="N", help="processes for the CRF (0: all cores)")
    return parser


if __name__ == "__main__":
    process.quiet()
    sys.exit(main(sys.argv[1:]))
