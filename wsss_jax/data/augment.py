"""Random changes of a training image and of what belongs to it, masks and scores.

Plain functions of uint8 arrays and an explicit `numpy.random.Generator`; the colors are in
`wsss_jax.data.color`. Images stay uint8: the device normalizes them.
"""

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image

from wsss_jax.data.color import color_jitter, grayscale, hsv_shift
from wsss_jax.data.images import IGNORE
from wsss_jax.data.limits import COLORS, check_limits, check_range
from wsss_jax.errors import UserError
from wsss_jax.settings import Settings

# The loader's threads are the parallelism; OpenCV's own pool would fight with them for the cores.
cv2.setNumThreads(1)

_Image = UInt8[np.ndarray, "h w 3"]
_Mask = UInt8[np.ndarray, "h w"]
_NewImage = UInt8[np.ndarray, "new_h new_w 3"]
_NewMask = UInt8[np.ndarray, "new_h new_w"]


def resize_image(
    image: _Image, height: int, width: int, rows: slice | None = None, cols: slice | None = None
) -> _NewImage:
    """Bicubic resize as PIL does it: a = -0.5, antialiased when shrinking, first along the rows.

    `rows` and `cols` (with start and stop) make only that window of the result, which saves a third
    of the work where a crop follows; on photographs 4 values in 10,000 then differ, by 1 or 2.

    OpenCV's cubic (a = -0.75, not antialiased) is five times as fast, but differs on photographs by
    0.7 gray levels on average and 5 at the 99th percentile when upsampling, 1.2 and 9 when
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
    """Nearest-neighbor resize, equal to PIL's pixel for pixel."""
    if mask.shape == (height, width):
        return mask
    exact = cv2.INTER_NEAREST_EXACT  # INTER_NEAREST rounds otherwise
    return cv2.resize(mask, (width, height), interpolation=exact)  # pyright: ignore[reportReturnType]


def sampled(image: _Image) -> _NewImage:
    """A hundred pixels along the longer side: they tell the mean of an image to 0.4 gray levels."""
    stride = max(1, max(image.shape[:2]) // 100)
    return np.ascontiguousarray(image[::stride, ::stride])


def _place(length: int, size: int, rng: np.random.Generator | None) -> tuple[slice, slice]:
    """Along one axis: which pixels are read, and where they are written."""
    space = abs(length - size)
    if length >= size:
        start = space // 2 if rng is None else int(rng.integers(space, endpoint=True))
        return slice(start, start + size), slice(0, size)
    start = 0 if rng is None else int(rng.integers(space, endpoint=True))
    return slice(0, length), slice(start, start + length)


@dataclasses.dataclass(frozen=True)
class Placement:
    """Which part of an image a square crop shows, for everything that belongs to the image.

    Attributes:
      size: height and width that the image is resized to.
      rows: of the resized image, to read; likewise `cols`.
      to_rows: of the crop, to fill; likewise `to_cols`.
      crop: side of the crop.
      flip: whether what is read is flipped left and right.
    """

    size: tuple[int, int]
    rows: slice
    cols: slice
    to_rows: slice
    to_cols: slice
    crop: int
    flip: bool

    def part(self, image: _Image) -> _NewImage:
        """The part of an image that will be seen."""
        part = resize_image(image, *self.size, self.rows, self.cols)
        return cv2.flip(part, 1) if self.flip else part  # pyright: ignore[reportReturnType]

    def paste(self, part: _Image) -> tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]:
        """A part in its place in the crop, zeros around it, and where it is."""
        crop = np.zeros((self.crop, self.crop, 3), np.uint8)
        valid = np.zeros((self.crop, self.crop), bool)
        crop[self.to_rows, self.to_cols] = part
        valid[self.to_rows, self.to_cols] = True
        return crop, valid

    def mask(self, mask: _Mask) -> UInt8[np.ndarray, "s s"]:
        """The crop of a mask, 255 around it."""
        part = resize_mask(mask, *self.size)[self.rows, self.cols]
        crop = np.full((self.crop, self.crop), IGNORE, np.uint8)
        crop[self.to_rows, self.to_cols] = part[:, ::-1] if self.flip else part
        return crop

    def planes(self, planes: Float[np.ndarray, "k h w"]) -> Float32[np.ndarray, "k s s"]:
        """The crop of score maps (resized bilinearly), zeros around it."""
        crop = np.zeros((len(planes), self.crop, self.crop), np.float32)
        for plane, target in zip(planes, crop, strict=True):
            if plane.shape != self.size:
                plane = cv2.resize(plane.astype(np.float32), self.size[::-1])
            part = plane[self.rows, self.cols]
            target[self.to_rows, self.to_cols] = part[:, ::-1] if self.flip else part
        return crop


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment(Settings):
    """Resizing, cropping, flipping and changes of color.

    The defaults are the classification training of SSENet and SEAM. There the crop comes last;
    here it comes with the resize, and later steps skip the pixels that it drops. The result has
    the same distribution, since contrast still uses the whole image's mean.

    Attributes:
      crop: side of the square crop, pixels.
      long_side: range of the longer side after resizing, pixels; (): no resizing.
      scale: range of the resize factor, instead of `long_side`; ().
      flip: probability of a horizontal flip.
      brightness, contrast, saturation, hue: strengths of the color jitter.
      jitter_p: probability of the color jitter.
      grayscale_p: probability of losing all color.
      hsv: largest number added to hue, saturation and value (of 8 bits); 0 for none.
      random_position: False takes the central crop, and pads at the bottom and the right only.
    """

    crop: int = 448
    long_side: tuple[int, int] | tuple[()] = (448, 768)
    scale: tuple[float, float] | tuple[()] = ()
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
        if self.long_side and self.scale:
            raise UserError("expected long_side or scale, found both: set one of them to ()")
        for name in ("long_side", "scale"):
            if getattr(self, name):
                check_range(self, name)
        check_limits(self, **COLORS, flip=(0, 1), hsv=(0, 127), crop=(1, math.inf))

    def place(self, size: tuple[int, int], rng: np.random.Generator) -> Placement:
        """Draws what of an image of `size` is shown.

        Per axis: where the resized image is at least as long as the crop, a random window of it is
        taken, otherwise the whole of it goes to a random offset. Without `random_position` the
        window is the central one and padding goes to the bottom and the right.
        """
        factor, divisor = 1.0, 1
        if self.long_side:
            factor, divisor = int(rng.integers(*self.long_side, endpoint=True)), max(size)
        elif self.scale:
            factor = rng.uniform(*self.scale)
        height, width = (max(1, round(side * factor / divisor)) for side in size)
        position = rng if self.random_position else None
        rows, to_rows = _place(height, self.crop, position)
        cols, to_cols = _place(width, self.crop, position)
        flip = bool(rng.random() < self.flip)
        return Placement((height, width), rows, cols, to_rows, to_cols, self.crop, flip)

    def recolor(self, part: _Image, sample: _NewImage, rng: np.random.Generator) -> _Image:
        """Changes the colors of a part of an image; `sample` is the image, see `sampled`."""
        if rng.random() < self.jitter_p:
            part = color_jitter(
                part,
                rng,
                brightness=self.brightness,
                contrast=self.contrast,
                saturation=self.saturation,
                hue=self.hue,
                whole=sample,
            )
        if rng.random() < self.grayscale_p:
            part = grayscale(part)
        if self.hsv:
            part = hsv_shift(part, rng, self.hsv)
        return part
