"""Writes and checks the archive that PASCAL VOC's evaluation server takes.

The archive is one ``.tar.gz`` of ``results/VOC2012/Segmentation/<COMPETITION>_test_cls/<id>.png``.
It has one file per id of the list and nothing else: single-channel PNGs with the VOC palette, in
the size of the image, with a class for every pixel and never 255. ``comp6`` allows outside data,
which ImageNet weights are, and ``comp5`` does not.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from wsss_jax.data.images import FORMATS
from wsss_jax.data.images import image_size as decoded_size
from wsss_jax.data.masks import VOC_PALETTE
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, read_bytes

Size = tuple[int, int]
"""(height, width)."""


COMPETITIONS = ("comp5", "comp6")


_SHOWN = 5  # faults named in one message
_MOST = 1 << 28  # bytes of a mask


def folder_in_archive(competition: str) -> str:
    """Returns the folder of the masks within the archive.

    Raises:
      UserError: there is no such competition.
    """
    if competition not in COMPETITIONS:
        raise UserError(f"expected competition comp5 or comp6, found {competition!r}: change it")
    return f"results/VOC2012/Segmentation/{competition}_test_cls"


def write_archive(path: Path, masks: Iterable[tuple[str, bytes]], competition: str) -> None:
    """Writes the archive atomically; the same masks give the same bytes.

    Args:
      path: the archive, a ``.tar.gz`` file.
      masks: pairs of id and PNG, in the order of the list.
      competition: one of `COMPETITIONS`.
    """
    folder = folder_in_archive(competition)
    with (
        atomic_write(path) as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for image_id, png in masks:
            member = tarfile.TarInfo(f"{folder}/{image_id}.png")
            member.size, member.mode = len(png), 0o644
            archive.addfile(member, io.BytesIO(png))


def check_archive(
    path: Path,
    ids: Sequence[str],
    size_of: Callable[[str], Size] | None = None,
    num_classes: int = 20,
    competition: str = "comp6",
) -> None:
    """Refuses an archive that the server would refuse or score wrongly.

    Args:
      path: the archive.
      ids: the ids that have to be in the archive; others must not be.
      size_of: a function that returns the size of an image. If it is None, sizes are not checked.
      num_classes: the number of foreground classes C; pixels are 0…C.
      competition: one of `COMPETITIONS`.

    Raises:
      UserError: the file is not such an archive or has faults, the first of which are named.
    """
    folder = folder_in_archive(competition)
    wanted, found, faults = set(ids), set(), []
    if not path.is_file():
        raise UserError(f"expected an archive at {path}, found none: check the path")
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.isdir():
                    continue
                parent, _, name = member.name.rpartition("/")
                image_id = name.removesuffix(".png")
                if parent != folder or image_id == name or not member.isfile():
                    faults.append(f"{member.name} (expected {folder}/<id>.png)")
                elif image_id not in wanted:
                    faults.append(f"{image_id}: not in the list")
                elif image_id in found:
                    faults.append(f"{image_id}: twice in the archive")
                elif member.size > _MOST:
                    faults.append(f"{image_id}: {member.size:,} bytes, more than a mask has")
                else:
                    found.add(image_id)
                    content = archive.extractfile(member)
                    assert content is not None  # a file, as checked above
                    size = None if size_of is None else size_of(image_id)
                    fault = mask_fault(content.read(), size, num_classes)
                    if fault:
                        faults.append(f"{image_id}: {fault}")
    except (OSError, EOFError, ValueError, OverflowError, tarfile.TarError, zlib.error) as error:
        raise UserError(
            f"expected a whole .tar.gz at {path}, found {type(error).__name__} ({error}): make the"
            " archive again"
        ) from error
    faults += [f"{image_id}: missing" for image_id in ids if image_id not in found]
    if faults:
        more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise UserError(
            f"expected {len(ids)} masks that the server accepts in {path}, found faults:"
            f" {'; '.join(faults[:_SHOWN])}{more}. Correct the masks and make the archive again"
        )


def mask_fault(png: bytes, size: Size | None, num_classes: int) -> str:
    """Describes what is wrong with one mask file for the server, or returns an empty string."""
    try:
        with Image.open(io.BytesIO(png), formats=FORMATS) as image:
            image.load()
            if image.format != "PNG" or image.mode != "P":
                return f"expected a PNG with a palette, found {image.format} of mode {image.mode}"
            palette = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"expected a readable image, found a damaged one ({error})"
    if size is not None and pixels.shape != size:
        return f"expected {size[1]}×{size[0]} pixels, found {pixels.shape[1]}×{pixels.shape[0]}"
    if pixels.max() > num_classes:
        return f"expected classes 0 to {num_classes}, found {pixels.max()}"
    expected = VOC_PALETTE[: num_classes + 1]
    if len(palette) <= pixels.max() or (palette[: len(expected)] != expected[: len(palette)]).any():
        return "expected the VOC palette, found other colors"
    return ""


def image_size(folder: Path, image_id: str) -> Size:
    """Reads the size of ``folder/<id>.jpg`` from its header.

    Raises:
      UserError: there is no such image.
    """
    path = folder / f"{image_id}.jpg"
    if not path.exists():
        raise UserError(f"expected an image at {path}, found none: check --images")
    return decoded_size(read_bytes(path), str(path))
