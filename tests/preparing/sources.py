"""Small sources of photographs, drawn for the tests."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (20, 12)) -> Image.Image:
    """A picture of `size` (width, height) whose content depends on the seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 4)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def save(
    path: Path,
    seed: int,
    mode: str = "RGB",
    orientation: int = 1,
    size: tuple[int, int] = (20, 12),
) -> Path:
    """Saves a picture in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation > 1:
        exif[0x0112] = orientation
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}.get(path.suffix.lower())
    file = io.BytesIO()
    picture(seed, mode, size).save(file, kind or path.suffix[1:].upper(), exif=exif)
    path.write_bytes(file.getvalue())
    return path


def photographs(folder: Path, *names: str) -> Path:
    """Saves a photograph under each name."""
    for seed, name in enumerate(names):
        save(folder / name, seed)
    return folder
