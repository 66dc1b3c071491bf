"""Random color changes of uint8 RGB images.

The arithmetic is that of PIL's ImageEnhance, which the published trainings used. Brightness and
contrast agree with it to one gray level, and saturation to two, because PIL truncates fractions.
PIL and OpenCV both shift the hue in 8-bit HSV, but round differently: on photographs each is
0.2 gray levels away from the exact result on average, and 0.3 away from the other.
"""

import functools
import math
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

LIMITS = {
    **dict.fromkeys(("brightness", "contrast", "saturation"), (0, math.inf)),
    "hue": (0, 0.5),
    **dict.fromkeys(("jitter_p", "grayscale_p"), (0, 1)),
}
"""The limits of the settings of `random_colors`, by name."""

_Image = UInt8[np.ndarray, "h w 3"]

# ITU-R 601 luma, in PIL's 16-bit fixed point.
_LUMA = np.array([19595, 38470, 7471]) / 65536


def _lut(center: float, factor: float) -> UInt8[np.ndarray, "256"]:
    values = center + factor * (np.arange(256) - center)
    return np.clip(values, 0, 255).astype(np.uint8)


def mean_gray(image: _Image) -> int:
    """Returns the mean luma, rounded."""
    return math.floor(float(np.dot(cv2.mean(image)[:3], _LUMA)) + 0.5)


def adjust_brightness(image: _Image, factor: float) -> _Image:
    """Multiplies every value by `factor` and clips."""
    return cv2.LUT(image, _lut(0.0, factor))  # pyright: ignore[reportReturnType]


def adjust_contrast(image: _Image, factor: float, mean: int | None = None) -> _Image:
    """Multiplies distances from `mean` (by default `mean_gray`) by `factor` and clips."""
    center = mean_gray(image) if mean is None else mean
    return cv2.LUT(image, _lut(float(center), factor))  # pyright: ignore[reportReturnType]


def adjust_saturation(image: _Image, factor: float) -> _Image:
    """Multiplies distances from each pixel's own luma by `factor` and clips."""
    matrix = factor * np.eye(3) + (1 - factor) * np.tile(_LUMA, (3, 1))
    return cv2.transform(image, matrix)  # pyright: ignore[reportReturnType]


def adjust_hue(image: _Image, shift: float) -> _Image:
    """Shifts the hue by `shift` full turns, in steps of 1/256."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(shift * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL, dst=hsv)  # pyright: ignore[reportReturnType]


def grayscale(image: _Image) -> _Image:
    """Replaces all three channels by the luma."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)  # pyright: ignore[reportReturnType]


def color_jitter(
    image: _Image,
    rng: np.random.Generator,
    *,
    brightness: float = 0.3,
    contrast: float = 0.3,
    saturation: float = 0.3,
    hue: float = 0.1,
    whole: UInt8[np.ndarray, "hh ww 3"] | None = None,
) -> _Image:
    """Changes brightness, contrast, saturation and hue in random order, as torchvision does.

    For each of the first three, with strength x, a factor is drawn uniformly from
    [max(0, 1 - x), 1 + x]. The hue is shifted by a share of a full turn, drawn uniformly from
    [-`hue`, `hue`]. A strength of 0 leaves its property as it is.

    Args:
      image: the image, or a part of it.
      rng: the generator that draws the order and the factors.
      brightness: the strength of the change of brightness.
      contrast: the strength of the change of contrast.
      saturation: the strength of the change of saturation.
      hue: the strength of the change of hue.
      whole: the whole image at any size, if `image` is a part of it; contrast then changes around
        the mean of the whole image.
    """
    strengths = (brightness, contrast, saturation, hue)
    for step in rng.permutation(4):
        strength = strengths[step]
        if not strength:
            continue
        change: Callable[[np.ndarray], np.ndarray]
        if step == 3:
            change = functools.partial(adjust_hue, shift=rng.uniform(-strength, strength))
        else:
            factor = rng.uniform(max(0.0, 1 - strength), 1 + strength)
            if step == 0:
                change = functools.partial(adjust_brightness, factor=factor)
            elif step == 1:
                mean = mean_gray(image if whole is None else whole)
                change = functools.partial(adjust_contrast, factor=factor, mean=mean)
            else:
                change = functools.partial(adjust_saturation, factor=factor)
        image = change(image)
        whole = None if whole is None else change(whole)
    return image


def random_colors(
    part: _Image,
    whole: UInt8[np.ndarray, "hh ww 3"],
    rng: np.random.Generator,
    *,
    jitter_p: float,
    grayscale_p: float,
    **strengths: float,
) -> _Image:
    """Jitters the colors of a part of an image, or removes them, each with its probability.

    `strengths` are those of `color_jitter`.
    """
    if rng.random() < jitter_p:
        part = color_jitter(part, rng, whole=whole, **strengths)
    return grayscale(part) if rng.random() < grayscale_p else part


def hsv_shift(image: _Image, rng: np.random.Generator, amount: int) -> _Image:
    """Adds random integers from ±`amount` to H (180 cyclic steps) and to S and V (clipped).

    SEAM trains its final segmentation network with this change and an amount of 10.
    """
    hue, saturation, value = (int(v) for v in rng.integers(-amount, amount, 3, endpoint=True))
    levels = np.arange(256)
    shifted = [(levels + hue) % 180, levels + saturation, levels + value]
    table = np.stack(shifted, axis=-1).clip(0, 255).astype(np.uint8)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table[None])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)  # pyright: ignore[reportReturnType]
