"""The command line that segments a folder of photographs with the network that a run has trained.

    python -m wsss_jax.segment --workdir runs/light --images PHOTOS --out RESULT

Network, scales and CRF are those of the run's last stage of type predict, such as `masks_val`. The
command writes ``masks/<name>.png`` (indices with VOC's palette), ``overlays/<name>.jpg`` for
viewing, and ``segment.json``, which records what they were made with and names the classes. The
same command resumes where it was interrupted, and redoes images that have changed. Damaged images
are named and left out (exit status 1). Mistakes are reported in one line (exit status 2).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsss_jax import command_line
from wsss_jax.command_line import Parser
from wsss_jax.host.host_memory import share_one_heap
from wsss_jax.pipeline import process

_EXAMPLES = (
    (
        "masks by the network of a run, with the settings of that run",
        "--workdir runs/light --images PHOTOS --out RESULT",
    ),
    (
        "several times as fast, and coarser",
        "--workdir runs/light --images PHOTOS \\\n        --out RESULT --scales 1 --no-crf",
    ),
    (
        "by another stage of the run",
        "--workdir runs/light --images PHOTOS \\\n        --out RESULT --stage masks_val",
    ),
)


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status.

    It is that of `command_line.run`, or 1 if damaged images were left out.
    """
    return command_line.run(_parser(), argv, _run)


def _run(options: argparse.Namespace) -> int:
    share_one_heap()
    # This import starts JAX.
    from wsss_jax.pipeline.finished_run import find_network
    from wsss_jax.pipeline.photo_folder import segment
    from wsss_jax.stages.predict import Predict

    # The labels of the photographs are unknown.
    changes: dict[str, Any] = {"workers": options.workers, "known_labels": False}
    if options.scales:
        changes["scales"] = options.scales
    if options.crf is not None:
        changes["crf"] = options.crf
    network = find_network(options.workdir, Predict, options.stage, options.classes, **changes)
    process.compilation_cache()
    count, skipped = segment(network, options.images, options.out)
    for message in skipped:
        print(f"left out: {message}", file=sys.stderr)
    print(f"{count} masks in {options.out / 'masks'}, overlays in {options.out / 'overlays'}")
    return 1 if skipped else 0


def _parser() -> Parser:
    parser = Parser(
        "wsss_jax.segment",
        "Segments a folder of photographs with a trained network. The same command resumes where\n"
        "it was interrupted, and redoes images that have changed.",
        usage="--workdir DIR --images DIR --out DIR [options]",
        examples=_EXAMPLES,
        statuses={1: "damaged images were left out; they are named"},
    )
    add = parser.add_argument_group("folders").add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="the run that trained it")
    add(
        "--images",
        type=Path,
        required=True,
        metavar="PATH",
        help="a folder or one image (docs/data.md)",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="where masks/ and overlays/ go")
    add = parser.add_argument_group("how masks are made").add_argument
    add("--stage", default="", metavar="NAME", help="a stage of type predict (the last one)")
    add(
        "--scales",
        type=command_line.numbers,
        metavar="S,S",
        help="factors of the image's size instead of those of the stage: 0.75,1,1.5",
    )
    add(
        "--crf",
        action=argparse.BooleanOptionalAction,
        help="with or without the final dense CRF, regardless of the stage",
    )
    add("--classes", default="", metavar="FILE", help="class names, for a run without them")
    add(
        "--workers",
        type=command_line.whole_number,
        default=0,
        metavar="N",
        help="processes for the CRF (0: one for each core)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
