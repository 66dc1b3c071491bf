"""The command line that converts CAM files to the formats of other programs.

    python -m wsss_jax.convert_cams --cams DIR --out DIR --format seam|irn|npz

The folder of `--cams` contains ``<id>.npz`` (ours) or ``<id>.npy`` (SEAM's, IRN's). IRN's program
also reads maps at a quarter of the size. They are resized from the full maps (bilinear, half-pixel
centers, as in IRN), whereas IRN sums its scales at this size.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wsss_jax import command_line
from wsss_jax.command_line import Parser
from wsss_jax.data.formats.cam_files import SUFFIXES
from wsss_jax.data.threads import thread_pool
from wsss_jax.errors import UserError
from wsss_jax.inference.cam_conversion import FORMATS, convert
from wsss_jax.progress import Progress

_EXAMPLES = (
    ("maps of a run, for SEAM's program", "--cams runs/light/cam --out SEAM --format seam"),
    ("for IRN's program", "--cams runs/light/cam --out IRN --format irn"),
    ("SEAM's or IRN's maps, for this program", "--cams SEAM --out CAMS --format npz"),
)


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status."""
    return command_line.run(_parser(), argv, _run)


def _run(options: argparse.Namespace) -> int:
    folder = options.cams / "cams" if (options.cams / "cams").is_dir() else options.cams
    sources = sorted(p for p in folder.glob("*") if p.suffix in SUFFIXES)
    if not sources:
        raise UserError(f"expected CAM files (.npz, .npy) in {folder}, found none: check --cams")
    if options.out.resolve() == folder.resolve():
        raise UserError(
            "expected --out to be another folder than --cams, found the same: change one of them"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    with Progress(len(sources), "convert") as progress, thread_pool() as pool:
        for _ in pool.map(lambda path: convert(path, options.out, options.format), sources):
            progress.update()
    print(f"{len(sources)} files in {options.out}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        "wsss_jax.convert_cams",
        "Writes CAM files in the format of another program.",
        usage="--cams DIR --out DIR --format FORMAT",
        examples=_EXAMPLES,
        goes_on=False,
    )
    add = parser.add_argument_group("files").add_argument
    add("--cams", type=Path, required=True, metavar="DIR", help="CAM files, or a stage's folder")
    add("--out", type=Path, required=True, metavar="DIR", help="where the new files go")
    add("--format", **command_line.one_of(*FORMATS), required=True, help="their format")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
