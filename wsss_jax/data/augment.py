"""Random changes of a training image and, where there is one, of its mask.

Plain functions of uint8 arrays and an explicit `numpy.random.Generator`. The order of `Augment` is
the one SEAM and SSENet were published with: resize, flip, colour jitter, crop. Images stay uint8;
the device normalises them.
"""

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from wsss_jax.data.images import IGNORE
from wsss_jax.errors import UserError

# The loader's threads are the parallelism; OpenCV's own pool would fight with them for the cores.
cv2.setNumThreads(1)

_Image = UInt8[np.ndarray, "h w 3"]
_Mask = UInt8[np.ndarray, "h w"]

# ITU-R 601 luma in 16-bit fixed point, as PIL's conversion to "L" has it.
_LUMA = np.array([19595, 38470, 7471]) / 65536


def resize_image(image: _Image, height: int, width: int) -> _Image:
    """Bicubic resize as PIL does it: a = -0.5, antialiased when shrinking.

    OpenCV's cubic (a = -0.75, not antialiased) is five times as fast, but differs on photographs by
    0.7 grey levels on average and 5 at the 99th percentile when enlarging, 1.2 and 9 when
    shrinking; networks were trained with PIL's.
    """
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def resize_mask(mask: _Mask, height: int, width: int) -> _Mask:
    """Nearest-neighbour resize, equal to PIL's pixel for pixel."""
    if mask.shape == (height, width):
        return mask
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)  # pyright: ignore


def _resize_both(
    image: _Image, mask: _Mask | None, height: int, width: int
) -> tuple[_Image, _Mask | None]:
    resized = None if mask is None else resize_mask(mask, height, width)
    return resize_image(image, height, width), resized


def random_long_side_resize(
    image: _Image, rng: np.random.Generator, low: int, high: int, mask: _Mask | None = None
) -> tuple[_Image, _Mask | None]:
    """Resizes so that the longer side is a uniform integer in [`low`, `high`], ends included."""
    long_side = int(rng.integers(low, high, endpoint=True))
    height, width = image.shape[:2]
    factor = long_side / max(height, width)
    return _resize_both(image, mask, max(1, round(height * factor)), max(1, round(width * factor)))


def random_scale(
    image: _Image, rng: np.random.Generator, low: float, high: float, mask: _Mask | None = None
) -> tuple[_Image, _Mask | None]:
    """Resizes both sides by one uniform factor in [`low`, `high`]."""
    factor = rng.uniform(low, high)
    height, width = image.shape[:2]
    return _resize_both(image, mask, max(1, round(height * factor)), max(1, round(width * factor)))


def horizontal_flip(image: _Image, mask: _Mask | None = None) -> tuple[_Image, _Mask | None]:
    """Mirrors left and right."""
    return cv2.flip(image, 1), None if mask is None else cv2.flip(mask, 1)  # pyright: ignore


def adjust_brightness(image: _Image, factor: float) -> _Image:
    """Every value times `factor`, clipped."""
    return cv2.LUT(image, _lookup(0.0, factor))  # pyright: ignore


def adjust_contrast(image: _Image, factor: float) -> _Image:
    """Distances from the mean grey level times `factor`, clipped."""
    mean = math.floor(float(np.dot(cv2.mean(image)[:3], _LUMA)) + 0.5)
    return cv2.LUT(image, _lookup(mean, factor))  # pyright: ignore


def adjust_saturation(image: _Image, factor: float) -> _Image:
    """Distances from the pixel's own grey level times `factor`, clipped."""
    matrix = factor * np.eye(3) + (1 - factor) * np.tile(_LUMA, (3, 1))
    return cv2.transform(image, matrix)  # pyright: ignore


def adjust_hue(image: _Image, shift: float) -> _Image:
    """Turns the hue by `shift` turns (-0.5..0.5) in 8-bit HSV."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(shift * 255) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)  # pyright: ignore


def _lookup(centre: float, factor: float) -> UInt8[np.ndarray, "256"]:
    values = centre + factor * (np.arange(256) - centre)
    return np.clip(values, 0, 255).astype(np.uint8)


def color_jitter(
    image: _Image,
    rng: np.random.Generator,
    brightness: float = 0.3,
    contrast: float = 0.3,
    saturation: float = 0.3,
    hue: float = 0.1,
) -> _Image:
    """Brightness, contrast, saturation and hue in random order (torchvision's ColorJitter).

    The first three are factors uniform in [max(0, 1 - x), 1 + x], the hue turns by a uniform share
    of a full turn in [-`hue`, `hue`]. A strength of 0 leaves its property alone.
    """
    for step in rng.permutation(4):
        if step == 0 and brightness:
            image = adjust_brightness(image, rng.uniform(max(0.0, 1 - brightness), 1 + brightness))
        elif step == 1 and contrast:
            image = adjust_contrast(image, rng.uniform(max(0.0, 1 - contrast), 1 + contrast))
        elif step == 2 and saturation:
            image = adjust_saturation(image, rng.uniform(max(0.0, 1 - saturation), 1 + saturation))
        elif step == 3 and hue:
            image = adjust_hue(image, rng.uniform(-hue, hue))
    return image


def grayscale(image: _Image) -> _Image:
    """The luma in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)  # pyright: ignore


def hsv_shift(image: _Image, rng: np.random.Generator, amount: int) -> _Image:
    """Adds to H (turning, 180 steps), S and V (clipped) one integer each from ±`amount`.

    Source: the DeepLab training of SEAM's final segmentation network, amount 10.
    """
    hue, saturation, value = (int(v) for v in rng.integers(-amount, amount, 3, endpoint=True))
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    levels = np.arange(256)
    table = np.stack(
        [(levels + hue) % 180, (levels + saturation).clip(0, 255), (levels + value).clip(0, 255)],
        axis=-1,
    )
    hsv = cv2.LUT(hsv, table.astype(np.uint8)[None])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)  # pyright: ignore


def _place(length: int, size: int, rng: np.random.Generator | None) -> tuple[int, int, int]:
    """Along one axis: first pixel read, first pixel written, number of pixels."""
    if length >= size:
        space = length - size
        start = space // 2 if rng is None else int(rng.integers(space, endpoint=True))
        return start, 0, size
    return 0, 0 if rng is None else int(rng.integers(size - length, endpoint=True)), length


def random_crop(
    image: _Image, size: int, rng: np.random.Generator | None, mask: _Mask | None = None
) -> tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"], UInt8[np.ndarray, "s s"] | None]:
    """Cuts a square, zero-padded where the image is smaller.

    Per axis: where the image is at least `size` long a random window is taken, otherwise the whole
    image goes to a random offset. Without `rng` the window is the central one and the padding goes
    to the bottom and the right.

    Returns:
      The crop, where it shows the image (False = padding), and the crop of `mask` (255 in padding).
    """
    from_y, to_y, height = _place(image.shape[0], size, rng)
    from_x, to_x, width = _place(image.shape[1], size, rng)
    source = np.s_[from_y : from_y + height, from_x : from_x + width]
    target = np.s_[to_y : to_y + height, to_x : to_x + width]
    crop = np.zeros((size, size, 3), np.uint8)
    crop[target] = image[source]
    valid = np.zeros((size, size), bool)
    valid[target] = True
    if mask is None:
        return crop, valid, None
    mask_crop = np.full((size, size), IGNORE, np.uint8)
    mask_crop[target] = mask[source]
    return crop, valid, mask_crop


@dataclasses.dataclass(frozen=True)
class Augment:
    """The training augmentation; its fields are the hyper-parameters.

    The defaults are the published ones of SSENet and SEAM's classification training. `long_side`
    and `scale` exclude each other; with both None the image keeps its size.

    Attributes:
      crop: side of the square crop, pixels.
      long_side: range of the longer side after resizing, pixels.
      scale: range of the resize factor (segmentation networks: 0.5 to 1.5).
      flip: probability of mirroring.
      brightness: strength, see `color_jitter`; so are `contrast`, `saturation` and `hue`.
      jitter_p: probability of the colour jitter.
      grayscale_p: probability of losing all colour.
      hsv: amount of `hsv_shift`.
      random_position: False takes the central crop and pads at the bottom and the right.
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
          UserError: a value is out of its range.
        """
        if self.crop < 1:
            raise UserError(f"augment.crop must be at least 1 pixel, found {self.crop}")
        if self.long_side is not None and self.scale is not None:
            raise UserError(
                "augment.long_side and augment.scale exclude each other: set one of them to None"
            )
        for name in ("long_side", "scale"):
            bounds = getattr(self, name)
            if bounds is not None and not (len(bounds) == 2 and 0 < bounds[0] <= bounds[1]):
                raise UserError(
                    f"augment.{name} must be two positive numbers (low, high), found {bounds}"
                )
        for name in ("flip", "jitter_p", "grayscale_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"augment.{name} is a probability in 0..1, found {getattr(self, name)}"
                )
        if not 0 <= self.hue <= 0.5:
            raise UserError(f"augment.hue must be in 0..0.5 turns, found {self.hue}")
        for name in ("brightness", "contrast", "saturation", "hsv"):
            if getattr(self, name) < 0:
                raise UserError(f"augment.{name} must not be negative, found {getattr(self, name)}")

    def __call__(
        self, image: _Image, mask: _Mask | None, rng: np.random.Generator
    ) -> tuple[
        UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"], UInt8[np.ndarray, "s s"] | None
    ]:
        """Returns the crop, where it shows the image, and the mask's crop."""
        if self.long_side is not None:
            image, mask = random_long_side_resize(image, rng, *self.long_side, mask)
        elif self.scale is not None:
            image, mask = random_scale(image, rng, *self.scale, mask)
        if self.flip and rng.random() < self.flip:
            image, mask = horizontal_flip(image, mask)
        if self.jitter_p and rng.random() < self.jitter_p:
            image = color_jitter(
                image, rng, self.brightness, self.contrast, self.saturation, self.hue
            )
        if self.grayscale_p and rng.random() < self.grayscale_p:
            image = grayscale(image)
        if self.hsv:
            image = hsv_shift(image, rng, self.hsv)
        return random_crop(image, self.crop, rng if self.random_position else None, mask)
