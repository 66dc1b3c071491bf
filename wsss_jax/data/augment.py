"""Changes training images, and the masks and scores that belong to them, at random.

These are functions of uint8 arrays and an explicit `numpy.random.Generator`; those of colors are in
`wsss_jax.data.color`. Images stay uint8, because the device normalizes them.
"""

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image

from wsss_jax.data.color import LIMITS, hsv_shift, random_colors
from wsss_jax.data.masks import IGNORE
from wsss_jax.errors import UserError
from wsss_jax.settings import Settings
from wsss_jax.settings.limits import check_limits, check_range

# The threads of the loader already use all cores, and OpenCV's own threads would compete with them.
cv2.setNumThreads(1)

_Image = UInt8[np.ndarray, "h w 3"]
_Mask = UInt8[np.ndarray, "h w"]
_NewImage = UInt8[np.ndarray, "new_h new_w 3"]
_NewMask = UInt8[np.ndarray, "new_h new_w"]


def resize_image(
    image: _Image, height: int, width: int, rows: slice | None = None, cols: slice | None = None
) -> _NewImage:
    """Resizes an image bicubically as PIL does: a = -0.5, antialiased, first along the rows.

    If `rows` and `cols` (with start and stop) are given, only this window of the result is
    computed. This saves a third of the work before a crop; on photographs, 4 values in 10,000 then
    differ by 1 or 2.

    OpenCV's cubic interpolation (a = -0.75, not antialiased) is five times as fast. On photographs
    it differs by 0.7 gray levels on average and 5 at the 99th percentile when upsampling, and by
    1.2 and 9 when shrinking. The published networks were trained with PIL's interpolation.
    """
    rows, cols = rows or slice(0, height), cols or slice(0, width)
    old_height, old_width = image.shape[:2]
    if (old_height, old_width) == (height, width):
        return image[rows, cols]
    # Multiplying before dividing makes the last edge exact; PIL refuses a box beyond the image.
    top, bottom = (edge * old_height / height for edge in (rows.start, rows.stop))
    left, right = (edge * old_width / width for edge in (cols.start, cols.stop))
    # There are two calls, because in one call Pillow 13 chooses the cheaper order of the two passes
    # for the shape of the window, and the 8-bit values between the passes then clip differently, by
    # up to 10 levels.
    reach = 2 * max(1.0, old_height / height) + 1
    first, last = max(0, math.floor(top - reach)), min(old_height, math.ceil(bottom + reach))
    part, size = Image.fromarray(image[first:last]), (cols.stop - cols.start, last - first)
    part = part.resize(size, Image.Resampling.BICUBIC, (left, 0, right, last - first))
    size = (size[0], rows.stop - rows.start)
    box = (0, top - first, size[0], bottom - first)
    return np.asarray(part.resize(size, Image.Resampling.BICUBIC, box))


def resize_mask(mask: _Mask, height: int, width: int) -> _NewMask:
    """Resizes a mask to the nearest neighbor, with the same pixels as PIL."""
    if mask.shape == (height, width):
        return mask
    exact = cv2.INTER_NEAREST_EXACT  # INTER_NEAREST rounds differently.
    return cv2.resize(mask, (width, height), interpolation=exact)  # pyright: ignore[reportReturnType]


def sampled(image: _Image) -> _NewImage:
    """Returns every nth pixel, about 100 along the longer side; means are exact to 0.4 levels."""
    stride = max(1, max(image.shape[:2]) // 100)
    return np.ascontiguousarray(image[::stride, ::stride])


def _place(length: int, size: int, rng: np.random.Generator | None) -> tuple[slice, slice]:
    """Returns which pixels are read along an axis, and where they are written."""
    space = abs(length - size)
    if length >= size:
        start = space // 2 if rng is None else int(rng.integers(space, endpoint=True))
        return slice(start, start + size), slice(0, size)
    start = 0 if rng is None else int(rng.integers(space, endpoint=True))
    return slice(0, length), slice(start, start + length)


@dataclasses.dataclass(frozen=True)
class Placement:
    """The part of an image that a square crop shows, for everything that belongs to the image.

    Attributes:
      size: the height and width to which the image is resized.
      rows, cols: the rows and columns of the resized image that are read.
      to_rows, to_cols: the rows and columns of the crop that are filled.
      crop: the side of the crop.
      flip: whether the part is flipped horizontally.
    """

    size: tuple[int, int]
    rows: slice
    cols: slice
    to_rows: slice
    to_cols: slice
    crop: int
    flip: bool

    def part(self, image: _Image) -> _NewImage:
        """Returns the part of an image that the crop shows."""
        part = resize_image(image, *self.size, self.rows, self.cols)
        return cv2.flip(part, 1) if self.flip else part  # pyright: ignore[reportReturnType]

    def paste(self, part: _Image) -> tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]:
        """Returns the crop with a part in its place and zeros around it, and its valid mask."""
        crop = np.zeros((self.crop, self.crop, 3), np.uint8)
        valid = np.zeros((self.crop, self.crop), bool)
        crop[self.to_rows, self.to_cols] = part
        valid[self.to_rows, self.to_cols] = True
        return crop, valid

    def mask(self, mask: _Mask) -> UInt8[np.ndarray, "s s"]:
        """Returns the crop of a mask, with 255 around it."""
        part = resize_mask(mask, *self.size)[self.rows, self.cols]
        crop = np.full((self.crop, self.crop), IGNORE, np.uint8)
        crop[self.to_rows, self.to_cols] = part[:, ::-1] if self.flip else part
        return crop

    def planes(self, planes: Float[np.ndarray, "k h w"]) -> Float32[np.ndarray, "k s s"]:
        """Returns the crop of score maps (resized bilinearly), with zeros around it."""
        crop = np.zeros((len(planes), self.crop, self.crop), np.float32)
        for plane, target in zip(planes, crop, strict=True):
            if plane.shape != self.size:
                plane = cv2.resize(plane.astype(np.float32), self.size[::-1])
            part = plane[self.rows, self.cols]
            target[self.to_rows, self.to_cols] = part[:, ::-1] if self.flip else part
        return crop


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment(Settings):
    """Resizes, crops and flips images, and changes their colors.

    The defaults are those of the classification training of SSENet and SEAM. There the crop comes
    last; here it is made during the resize, so that later steps skip the pixels outside. The result
    has the same distribution, because the contrast still uses the mean of the whole image.

    Attributes:
      crop: the side of the square crop in pixels.
      long_side: the range of the longer side after resizing in pixels; () for no resizing.
      scale: the range of the resize factor, instead of `long_side`; () for none.
      flip: the probability of a horizontal flip.
      brightness, contrast, saturation, hue: the strengths of the color jitter.
      jitter_p: the probability of the color jitter.
      grayscale_p: the probability of removing all color.
      hsv: the largest number that is added to hue, saturation and value (of 8 bits); 0 for none.
      random_position: whether the crop has a random position; otherwise it is central, with padding
        only at the bottom and the right.
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
        check_limits(self, **LIMITS, flip=(0, 1), hsv=(0, 127), crop=(1, math.inf))

    def place(self, size: tuple[int, int], rng: np.random.Generator) -> Placement:
        """Draws the part of an image of `size` that the crop shows.

        Along each axis, if the resized image is at least as long as the crop, the crop shows a
        random window of it. Otherwise, it shows all of it at a random offset. Without
        `random_position`, the window is the central one, and padding is at the bottom and right.
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
        """Changes the colors of a part of an image; `sample` is `sampled` of the whole image."""
        part = random_colors(part, sample, rng, **{name: getattr(self, name) for name in LIMITS})
        if self.hsv:
            part = hsv_shift(part, rng, self.hsv)
        return part
