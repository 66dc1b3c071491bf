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

import numpy as np
from jaxtyping import Float

from wsss_jax import scoring
from wsss_jax.data.cam_files import (
    SUFFIXES,
    read_cams,
    write_cams,
    write_irn_cams,
    write_seam_cams,
)
from wsss_jax.errors import UserError
from wsss_jax.ops.resize import interpolation_matrix
from wsss_jax.progress import Progress

FORMATS = ("seam", "irn", "npz")


def convert(source: Path, folder: Path, form: str) -> Path:
    """Writes one CAM file to `folder` in the format `form`; returns the new file's path.

    Raises:
      UserError: `source` is damaged or no CAM file.
    """
    keys, cam = read_cams(source)
    cam = cam.astype(np.float32)
    target = folder / f"{source.stem}{'.npz' if form == 'npz' else '.npy'}"
    if form == "npz":
        write_cams(target, keys, cam)
    elif form == "seam":
        write_seam_cams(target, keys, cam)
    else:
        write_irn_cams(target, keys, quarter(cam), cam)
    return target


def quarter(cam: Float[np.ndarray, "k h w"]) -> Float[np.ndarray, "k h4 w4"]:
    """Maps at ⌈h/4⌉ × ⌈w/4⌉, bilinear."""
    rows, columns = (
        interpolation_matrix(n, -(-n // 4), align_corners=False) for n in cam.shape[1:]
    )
    return rows @ cam @ columns.T


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
        with Progress(len(sources), "convert") as progress, scoring.thread_pool() as pool:
            for _ in pool.map(lambda path: convert(path, options.out, options.format), sources):
                progress.update()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(sources)} files in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
