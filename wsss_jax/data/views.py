"""Makes further views of a training crop: one with strong changes of color, and local crops.

Methods with a teacher or with consistency between views ask for them; see
`wsss_jax.data.batch_spec`. Both have their own random generators, so that the first view of a batch
does not depend on them.
"""

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Bool, Int32, UInt8

from wsss_jax.data.augment import resize_image, resize_mask
from wsss_jax.data.color import LIMITS, random_colors
from wsss_jax.settings import Settings
from wsss_jax.settings.limits import check_limits, check_range

_Image = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StrongView(Settings):
    """Makes a view with the crop and flip of the batch's image and strong changes of color.

    The colors are changed before the image is padded, independently of those of the batch's image.
    The defaults are those of the strong view of UniMatch (Yang et al., CVPR 2023).

    Attributes:
      brightness, contrast, saturation, hue: the strengths of the color jitter.
      jitter_p: the probability of the color jitter.
      grayscale_p: the probability of removing all color.
      blur_p: the probability of a Gaussian blur.
      blur_sigma: the range of the blur's standard deviation in pixels of the crop.
    """

    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.25
    jitter_p: float = 0.8
    grayscale_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
          UserError: a value is out of its range.
        """
        check_limits(self, **LIMITS, blur_p=(0, 1))
        check_range(self, "blur_sigma")

    def __call__(
        self, part: _Image, sample: UInt8[np.ndarray, "hh ww 3"], rng: np.random.Generator
    ) -> _Image:
        """Returns a view of a part of an image; `sample` is `augment.sampled` of the image."""
        part = random_colors(part, sample, rng, **{name: getattr(self, name) for name in LIMITS})
        if rng.random() < self.blur_p:
            sigma = rng.uniform(*self.blur_sigma)
            part = cv2.GaussianBlur(part, (0, 0), sigma)  # pyright: ignore[reportAssignmentType]
        return part


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalCrops(Settings):
    """Makes small square views of parts of the batch's image, which are cut out and resized.

    If a part fits into the image, it is inside. Otherwise, it shows the whole length of the image
    and as little padding as possible. The defaults are those of DINO (Caron et al., ICCV 2021).

    Attributes:
      count: the number of views of an image.
      size: the height and width of a view in pixels.
      scale: the range of a part's area, relative to that of the crop.
      ratio: the range of a part's width divided by its height.
    """

    count: int = 8
    size: int = 96
    scale: tuple[float, float] = (0.05, 0.4)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
          UserError: a value is out of its range.
        """
        check_limits(self, count=(1, math.inf), size=(1, math.inf))
        check_range(self, "scale", 1.0)
        check_range(self, "ratio")

    def boxes(
        self, rows: slice, cols: slice, crop: int, rng: np.random.Generator
    ) -> Int32[np.ndarray, "n 4"]:
        """Draws the top, left, height and width of parts in pixels of the crop.

        Args:
          rows: the rows of the crop that show the image.
          cols: the columns of the crop that show the image.
          crop: the side of the crop in pixels.
          rng: the random generator.
        """
        boxes = np.zeros((self.count, 4), np.int32)
        for box in boxes:
            area = rng.uniform(*self.scale) * crop**2
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            height, width = (
                min(crop, max(1, round(math.sqrt(n)))) for n in (area / ratio, area * ratio)
            )
            box[:] = _start(rows, height, crop, rng), _start(cols, width, crop, rng), height, width
        return boxes

    def __call__(
        self,
        crop: UInt8[np.ndarray, "s s 3"],
        rows: slice,
        cols: slice,
        rng: np.random.Generator,
    ) -> tuple[UInt8[np.ndarray, "n v v 3"], Bool[np.ndarray, "n v v"], Int32[np.ndarray, "n 4"]]:
        """Returns views, masks of the pixels that show the image, and the parts (see `boxes`).

        Resizing is bicubic, as for the crop. Padding is zero and does not mix with the image.
        """
        boxes = self.boxes(rows, cols, len(crop), rng)
        views = [_view(crop, rows, cols, box, self.size) for box in boxes.tolist()]
        return np.stack([v for v, _ in views]), np.stack([v for _, v in views]), boxes


def _start(shown: slice, length: int, crop: int, rng: np.random.Generator) -> int:
    """Draws the start of a part of `length` along an axis, of which `shown` shows the image."""
    low, high = sorted((shown.start, shown.stop - length))
    return int(rng.integers(max(low, 0), min(high, crop - length), endpoint=True))


def _view(
    crop: np.ndarray, rows: slice, cols: slice, box: list[int], size: int
) -> tuple[UInt8[np.ndarray, "v v 3"], Bool[np.ndarray, "v v"]]:
    top, left, height, width = box
    first, last = max(top, rows.start), min(top + height, rows.stop)
    begin, end = max(left, cols.start), min(left + width, cols.stop)
    around = (first - top, top + height - last, begin - left, left + width - end)
    # Replicating the border of the image into the padding keeps black out of the resized image.
    part = cv2.copyMakeBorder(crop[first:last, begin:end], *around, cv2.BORDER_REPLICATE)
    inside = np.zeros((height, width), np.uint8)
    inside[first - top : last - top, begin - left : end - left] = 1
    valid = resize_mask(inside, size, size).astype(bool)
    return resize_image(part, size, size) * valid[..., None], valid  # pyright: ignore
