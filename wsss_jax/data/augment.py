"""Random changes of a training image and, where there is one, of its mask.

Plain functions of uint8 arrays and an explicit `numpy.random.Generator`; the colours are in
`wsss_jax.data.color`. Images stay uint8: the device normalises them.
"""

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from wsss_jax.data.color import color_jitter, grayscale, hsv_shift
from wsss_jax.data.images import IGNORE
from wsss_jax.errors import UserError

# The loader's threads are the parallelism; OpenCV's own pool would fight with them for the cores.
cv2.setNumThreads(1)

_Image = UInt8[np.ndarray, "h w 3"]
_Mask = UInt8[np.ndarray, "h w"]
_NewImage = UInt8[np.ndarray, "new_h new_w 3"]
_NewMask = UInt8[np.ndarray, "new_h new_w"]
_Crop = tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"], UInt8[np.ndarray, "s s"] | None]


def resize_image(
    image: _Image, height: int, width: int, rows: slice | None = None, cols: slice | None = None
) -> _NewImage:
    """Bicubic resize as PIL does it: a = -0.5, antialiased when shrinking, first along the rows.

    `rows` and `cols` (with start and stop) make only that window of the result, which saves a third
    of the work where a crop follows; on photographs 4 values in 10,000 then differ, by 1 or 2.

    OpenCV's cubic (a = -0.75, not antialiased) is five times as fast, but differs on photographs by
    0.7 grey levels on average and 5 at the 99th percentile when enlarging, 1.2 and 9 when
    shrinking; networks were trained with PIL's.
    """
    rows, cols = rows or slice(0, height), cols or slice(0, width)
    old_height, old_width = image.shape[:2]
    if (old_height, old_width) == (height, width):
        return image[rows, cols]
    # Multiply, then divide: the image's last edge must come out exact, PIL refuses a larger box.
    top, bottom = (edge * old_height / height for edge in (rows.start, rows.stop))
    left, right = (edge * old_width / width for edge in (cols.start, cols.stop))
    # Two passes of our own: in one call, Pillow 13 takes the cheaper order for the window's shape,
    # and 8-bit values in between then clip otherwise, by 10 levels in places.
    reach = 2 * max(1.0, old_height / height) + 1
    first, last = max(0, math.floor(top - reach)), min(old_height, math.ceil(bottom + reach))
    part, size = Image.fromarray(image[first:last]), (cols.stop - cols.start, last - first)
    part = part.resize(size, Image.Resampling.BICUBIC, (left, 0, right, last - first))
    size = (size[0], rows.stop - rows.start)
    box = (0, top - first, size[0], bottom - first)
    return np.asarray(part.resize(size, Image.Resampling.BICUBIC, box))


def resize_mask(mask: _Mask, height: int, width: int) -> _NewMask:
    """Nearest-neighbour resize, equal to PIL's pixel for pixel."""
    if mask.shape == (height, width):
        return mask
    exact = cv2.INTER_NEAREST_EXACT  # INTER_NEAREST rounds otherwise
    return cv2.resize(mask, (width, height), interpolation=exact)  # pyright: ignore[reportReturnType]


def _resize(
    image: _Image, mask: _Mask | None, size: tuple[int, int]
) -> tuple[_NewImage, _NewMask | None]:
    return resize_image(image, *size), None if mask is None else resize_mask(mask, *size)


def _long_side_size(
    image: _Image, rng: np.random.Generator, low: int, high: int
) -> tuple[int, int]:
    long_side = int(rng.integers(low, high, endpoint=True))
    height, width = image.shape[:2]
    longer = max(height, width)
    return max(1, round(height * long_side / longer)), max(1, round(width * long_side / longer))


def _scaled_size(
    image: _Image, rng: np.random.Generator, low: float, high: float
) -> tuple[int, int]:
    factor = rng.uniform(low, high)
    return max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))


def random_long_side_resize(
    image: _Image, rng: np.random.Generator, low: int, high: int, mask: _Mask | None = None
) -> tuple[_NewImage, _NewMask | None]:
    """Resizes so that the longer side is a uniform integer in [`low`, `high`], ends included."""
    return _resize(image, mask, _long_side_size(image, rng, low, high))


def random_scale(
    image: _Image, rng: np.random.Generator, low: float, high: float, mask: _Mask | None = None
) -> tuple[_NewImage, _NewMask | None]:
    """Resizes both sides by one factor, uniform in [`low`, `high`]."""
    return _resize(image, mask, _scaled_size(image, rng, low, high))


def horizontal_flip(image: _Image, mask: _Mask | None = None) -> tuple[_Image, _Mask | None]:
    """Mirrors left and right."""
    return cv2.flip(image, 1), None if mask is None else cv2.flip(mask, 1)  # pyright: ignore[reportReturnType]


def _place(length: int, size: int, rng: np.random.Generator | None) -> tuple[slice, slice]:
    """Along one axis: which pixels are read, and where they are written."""
    space = abs(length - size)
    if length >= size:
        start = space // 2 if rng is None else int(rng.integers(space, endpoint=True))
        return slice(start, start + size), slice(0, size)
    start = 0 if rng is None else int(rng.integers(space, endpoint=True))
    return slice(0, length), slice(start, start + length)


def _paste(image: _Image, mask: _Mask | None, size: int, rows: slice, cols: slice) -> _Crop:
    crop = np.zeros((size, size, 3), np.uint8)
    valid = np.zeros((size, size), bool)
    crop[rows, cols] = image
    valid[rows, cols] = True
    if mask is None:
        return crop, valid, None
    mask_crop = np.full((size, size), IGNORE, np.uint8)
    mask_crop[rows, cols] = mask
    return crop, valid, mask_crop


def random_crop(
    image: _Image, size: int, rng: np.random.Generator | None, mask: _Mask | None = None
) -> _Crop:
    """Cuts a square, zero-padded where the image is smaller.

    Per axis: where the image is at least `size` long a random window is taken, otherwise the whole
    image goes to a random offset. Without `rng` the window is the central one and padding goes to
    the bottom and the right.

    Returns:
      The crop, where it shows the image (False = padding), and the crop of `mask` (255 in padding).
    """
    (rows, to_rows), (cols, to_cols) = (_place(n, size, rng) for n in image.shape[:2])
    mask = None if mask is None else mask[rows, cols]
    return _paste(image[rows, cols], mask, size, to_rows, to_cols)


@dataclasses.dataclass(frozen=True)
class Augment:
    """Resize, crop, flip and colours; the fields are the hyper-parameters.

    The defaults are the classification training of SSENet and SEAM. There the crop comes last;
    here it comes with the resize, and later steps skip the pixels that it drops. The result has
    the same distribution, since contrast still uses the whole image's mean.

    Attributes:
      crop: side of the square crop, pixels.
      long_side: range of the longer side after resizing, pixels; None: no resizing.
      scale: range of the resize factor, instead of `long_side` (segmentation networks: 0.5, 1.5).
      flip: probability of mirroring.
      brightness: strength, see `color_jitter`; likewise `contrast`, `saturation` and `hue`.
      jitter_p: probability of the colour jitter.
      grayscale_p: probability of losing all colour.
      hsv: amount of `hsv_shift`.
      random_position: False takes the central crop, and pads at the bottom and the right only.
    """

    crop: int = 448
    long_side: tuple[int, int] | None = (448, 768)
    scale: tuple[float, float] | None = None
    flip: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.1
    jitter_p: float = 1.0
    grayscale_p: float = 0.0
    hsv: int = 0
    random_position: bool = True

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
          UserError: a value is out of its range, or `long_side` and `scale` are both set.
        """
        if self.long_side is not None and self.scale is not None:
            raise UserError(
                "expected augment.long_side or augment.scale, found both: set one of them to None"
            )
        for name in ("long_side", "scale"):
            bounds = getattr(self, name)
            if bounds is not None and not (len(bounds) == 2 and 0 < bounds[0] <= bounds[1]):
                raise UserError(f"expected 0 < low <= high in augment.{name}, found {bounds}")
        limits = {"flip": (0, 1), "jitter_p": (0, 1), "grayscale_p": (0, 1), "hue": (0, 0.5)}
        limits |= dict.fromkeys(("brightness", "contrast", "saturation"), (0, float("inf")))
        limits |= {"hsv": (0, 127), "crop": (1, float("inf"))}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"expected augment.{name} in {low}..{high}, found {value}")

    def __call__(self, image: _Image, mask: _Mask | None, rng: np.random.Generator) -> _Crop:
        """Returns the crop, where it shows the image, and the mask's crop (see `random_crop`)."""
        height, width = image.shape[:2]
        if self.long_side is not None:
            height, width = _long_side_size(image, rng, *self.long_side)
        elif self.scale is not None:
            height, width = _scaled_size(image, rng, *self.scale)
        position = rng if self.random_position else None
        rows, to_rows = _place(height, self.crop, position)
        cols, to_cols = _place(width, self.crop, position)
        part = resize_image(image, height, width, rows, cols)
        if mask is not None:
            mask = resize_mask(mask, height, width)[rows, cols]
        if rng.random() < self.flip:
            part, mask = horizontal_flip(part, mask)
        if rng.random() < self.jitter_p:
            stride = max(1, max(image.shape[:2]) // 100)
            part = color_jitter(
                part,
                rng,
                brightness=self.brightness,
                contrast=self.contrast,
                saturation=self.saturation,
                hue=self.hue,
                # A hundred pixels along the longer side tell the mean to 0.4 grey levels.
                whole=np.ascontiguousarray(image[::stride, ::stride]),
            )
        if rng.random() < self.grayscale_p:
            part = grayscale(part)
        if self.hsv:
            part = hsv_shift(part, rng, self.hsv)
        return _paste(part, mask, self.crop, to_rows, to_cols)
