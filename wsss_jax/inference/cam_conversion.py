"""Converts CAM files to the formats of other programs.

IRN's program needs maps at a quarter of the size besides the full ones. Here they are resized from
the full ones (bilinear with half-pixel centers, as in IRN), while IRN sums its scales at that size.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from wsss_jax.data.formats.cam_files import read_cams, write_cams, write_irn_cams, write_seam_cams
from wsss_jax.host.interpolation import interpolation_matrix

FORMATS = ("seam", "irn", "npz")


def convert(source: Path, folder: Path, form: str) -> Path:
    """Writes one CAM file to `folder` in the format `form`; returns the new file's path.

    Raises:
      UserError: `source` is damaged or not a CAM file.
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
    """Resizes maps to ⌈h/4⌉ × ⌈w/4⌉, bilinearly."""
    rows, columns = (
        interpolation_matrix(n, -(-n // 4), align_corners=False) for n in cam.shape[1:]
    )
    return rows @ cam @ columns.T
