"""Command line: CAM files in another format, for the programs that read those.

    python -m wsss_jax.convert_cams --cams DIR --out DIR --format seam|irn|npz

`DIR` holds ``<id>.npz`` (ours) or ``<id>.npy`` (SEAM's, IRN's). IRN's program also wants maps at a
quarter of the size; they are resized from the full ones (bilinear, half-pixel centres, as there),
where IRN sums its scales at that size.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wsss_jax.data.formats.cam_files import (
    SUFFIXES,
)
from wsss_jax.data.threads import thread_pool
from wsss_jax.errors import UserError
from wsss_jax.inference.cam_conversion import FORMATS, convert
from wsss_jax.progress import Progress


def main(arguments: Sequence[str]) -> int:
    """Runs the command line and returns the exit status: 0, or 2 after a mistake of the user."""
    parser = argparse.ArgumentParser(
        prog="python -m wsss_jax.convert_cams", description="Write CAM files in another format."
    )
    add = parser.add_argument
    add("--cams", type=Path, required=True, metavar="DIR", help="CAM files, or a stage's folder")
    add("--out", type=Path, required=True, metavar="DIR", help="where the new files go")
    add("--format", choices=FORMATS, required=True)
    options = parser.parse_args(arguments)
    try:
        folder = options.cams / "cams" if (options.cams / "cams").is_dir() else options.cams
        sources = sorted(p for p in folder.glob("*") if p.suffix in SUFFIXES)
        if not sources:
            raise UserError(
                f"expected CAM files (.npz, .npy) in {folder}, found none; check --cams"
            )
        if options.out.resolve() == folder.resolve():
            raise UserError("expected --out to be another folder than --cams, found the same")
        options.out.mkdir(parents=True, exist_ok=True)
        with Progress(len(sources), "convert") as progress, thread_pool() as pool:
            for _ in pool.map(lambda path: convert(path, options.out, options.format), sources):
                progress.update()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(sources)} files in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
