"""Finds the masks that a source has for some of its photographs, and reads them as indices."""

import dataclasses
import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from wsss_jax.data.images import open_image, refuse_many_pixels, strips
from wsss_jax.data.masks import IGNORE, decode_mask
from wsss_jax.data.plain_folder import walk
from wsss_jax.errors import UserError
from wsss_jax.files import read_bytes

_ENDINGS = re.compile(r"[_. -]?(mask|masks|seg|segmentation|label|labels|gt|groundtruth)$", re.I)
_FORMATS = ("PNG", "BMP", "TIFF")
_PER_PIXEL = 7  # bytes: four in PIL, and one for each of the gray values, their copy and their file


@dataclasses.dataclass(frozen=True)
class GivenMask:
    """The mask of a photograph.

    Attributes:
      path: the file.
      index: the class of the foreground of a mask of two values; 0 for a mask of class indices.
      foreground: the value of that foreground.
    """

    path: Path
    index: int
    foreground: int

    def read(self, size: tuple[int, int], num_classes: int) -> UInt8[np.ndarray, "h w"]:
        """Returns class indices, where 255 is ignored.

        Args:
          size: the height and width of the photograph.
          num_classes: the number of foreground classes.

        Raises:
          UserError: the file is damaged, or has another size, colors or other values.
        """
        content = _single_channel(read_bytes(self.path), self.path)
        mask = decode_mask(
            content, str(self.path), None if self.foreground else num_classes, self.foreground
        )
        if self.foreground:
            found = mask == 1
            if not self.index and found.any():
                raise UserError(
                    f"expected no foreground in {self.path}, because the label of its photograph"
                    " has no class, found some: correct the label or the mask"
                )
            mask[found] = self.index
        elif IGNORE in mask and set(np.unique(mask)) <= {0, IGNORE}:
            raise UserError(
                f"expected class indices 1 to {num_classes} in {self.path}, found 0 and 255 alone:"
                " if 255 marks the object, say --foreground 255"
            )
        if mask.shape != size:
            raise UserError(
                f"expected a mask of {size[1]} x {size[0]} like its photograph, found"
                f" {mask.shape[1]} x {mask.shape[0]} in {self.path}: it belongs to another"
                " photograph, or was not turned with it"
            )
        return mask


def match_masks(
    folder: Path, photographs: Sequence[str]
) -> tuple[dict[str, Path], list[str], list[str]]:
    """Finds the masks of photographs by their paths or names, also with endings like ``_mask``.

    Args:
      folder: the folder of the masks.
      photographs: the paths of the photographs below the source.

    Returns:
      The masks by photograph; masks that fit none; and masks that fit several photographs, or
      photographs with several masks.

    Raises:
      UserError: there is no such folder, or no mask in it.
    """
    if not folder.is_dir():
        raise UserError(f"expected a folder of masks at {folder}, found none: check the path")
    by_path: dict[str, list[str]] = defaultdict(list)
    for below in photographs:
        stem = below.rpartition(".")[0].casefold()
        for key in dict.fromkeys((stem, stem.rpartition("/")[2])):
            by_path[key].append(below)
    found: dict[str, Path] = {}
    alone: list[str] = []
    double: list[str] = []
    masks = [p for p in walk(folder) if p.suffix.lower() in (".png", ".bmp", ".tif", ".tiff")]
    if not masks:
        raise UserError(f"expected masks (.png, .bmp, .tif) in {folder}, found none")
    for path in masks:
        below = path.relative_to(folder).as_posix()
        stem = below.removesuffix(path.suffix).casefold()
        short = _ENDINGS.sub("", stem)
        keys = dict.fromkeys((stem, short, stem.rpartition("/")[2], short.rpartition("/")[2]))
        matches = next((by_path[key] for key in keys if key in by_path), [])
        if len(matches) == 1 and matches[0] not in found:
            found[matches[0]] = path
        elif matches:
            double.append(below)
        else:
            alone.append(below)
    return found, alone, double


def with_classes(
    masks: Mapping[str, Path], labels: Mapping[str, Sequence[int]], foreground: int
) -> tuple[dict[str, GivenMask], list[str]]:
    """Tells which class the foreground of masks of two values is.

    Args:
      masks: the files by photograph.
      labels: the indices of the classes of each photograph, from 1 on.
      foreground: the value of the foreground, or 0 for masks of class indices.

    Returns:
      The masks, and the photographs with several classes, of which a mask of two values tells none.
    """
    if not foreground:
        return {name: GivenMask(path, 0, 0) for name, path in masks.items()}, []
    unclear = [name for name in masks if len(labels.get(name, ())) > 1]
    good = {
        name: GivenMask(path, next(iter(labels.get(name, ())), 0), foreground)
        for name, path in masks.items()
        if name not in unclear
    }
    return good, unclear


def _single_channel(data: bytes, path: Path) -> bytes:
    """Returns a mask as PNG of one channel, where three equal channels or no alpha are one."""
    image = open_image(data, str(path), _FORMATS)
    if image.format == "PNG" and image.mode not in ("RGB", "RGBA", "LA"):
        return data
    refuse_many_pixels(image.size, _PER_PIXEL, len(data), str(path))
    try:
        image.load()
        if image.mode in ("RGB", "RGBA", "LA"):
            image = Image.fromarray(_gray(image, path))
        file = io.BytesIO()
        image.save(file, "PNG")
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"expected a mask, found a damaged file in {path}: replace it") from error
    return file.getvalue()


def _gray(image: Image.Image, path: Path) -> UInt8[np.ndarray, "h w"]:
    gray = np.empty(image.size[::-1], np.uint8)
    for rows, strip in strips(image):
        pixels = np.asarray(strip.convert("RGB"))
        if (pixels != pixels[..., :1]).any():
            raise UserError(
                f"expected class indices in {path}, found colors: convert each color to the index"
                " of its class"
            )
        gray[rows] = pixels[..., 0]
    return gray
