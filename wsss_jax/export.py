"""The command line that writes the network of a run as one file that runs without this package.

    python -m wsss_jax.export --workdir runs/light --out network.zip

The file contains the network, its pre-processing and its post-processing, so that an image of any
size goes in, and a mask and scores come out. It is read with JAX and NumPy, without this package.
Network, scales and flips are those of the run's last stage of type predict, or with ``--maps`` of
type infer_cam. `wsss_jax.weights export` writes only the weights, for networks of other programs.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from wsss_jax import command_line
from wsss_jax.command_line import Parser

_PLATFORMS = ("cpu", "cuda", "tpu")

_EXAMPLES = (
    (
        "the segmentation network of a run, with the scales and flips of its masks",
        "--workdir runs/light --out network.zip",
    ),
    (
        "several times as fast, and coarser",
        "--workdir runs/light --out fast.zip --scales 1 --no-flip",
    ),
    (
        "activation maps of the classes that an image shows",
        "--workdir runs/light --out maps.zip --maps",
    ),
)


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status."""
    return command_line.run(_parser(), argv, _run)


def _run(options: argparse.Namespace) -> int:
    # These imports start JAX.
    from wsss_jax.pipeline.finished_run import find_network
    from wsss_jax.pipeline.program_file import write_program
    from wsss_jax.stages.infer_cam import InferCam
    from wsss_jax.stages.predict import Predict

    changes: dict[str, Any] = {}
    if options.scales:
        changes["scales"] = options.scales
    if options.flip is not None:
        changes["flip"] = options.flip
    kind = InferCam if options.maps else Predict
    if kind is Predict:  # The labels of other images are unknown.
        changes["known_labels"] = False
    network: Any = find_network(options.workdir, kind, options.stage, options.classes, **changes)
    write_program(network, options.out, options.platforms, print)
    size = options.out.stat().st_size / 1e6
    print(f"the network of {network.checkpoint} in {options.out} ({size:.1f} MB)")
    return 0


def _platforms(text: str) -> tuple[str, ...]:
    found = command_line.names(text)
    if not set(found) <= set(_PLATFORMS):
        raise argparse.ArgumentTypeError(
            f"expected some of {', '.join(_PLATFORMS)}, found {text!r}"
        )
    return found


def _parser() -> Parser:
    parser = Parser(
        "wsss_jax.export",
        "Writes the network of a run as one file, which makes masks without this package.",
        usage="--workdir DIR --out FILE [options]",
        examples=_EXAMPLES,
        goes_on=False,
    )
    command_line.add_run_options(parser.add_argument_group("network"), required=True)
    add = parser.add_argument_group("what the program does").add_argument
    add(
        "--out",
        type=command_line.new_file,
        required=True,
        metavar="FILE",
        help="the file to write, a zip archive",
    )
    add(
        "--maps",
        action="store_true",
        help="activation maps of given labels, by a stage of type infer_cam instead of predict",
    )
    add(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="with or without flipped images, regardless of the stage",
    )
    add(
        "--platforms",
        type=_platforms,
        default=_PLATFORMS,
        metavar="P,P",
        help="where it shall run: some of cpu,cuda,tpu (all)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
