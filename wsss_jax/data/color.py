"""Random changes of a photograph's colors, on uint8 RGB arrays.

The arithmetic is that of PIL's ImageEnhance, which the published trainings used: brightness and
contrast agree with it to one gray level, saturation to two (PIL cuts off fractions). Both PIL and
OpenCV turn the hue in 8-bit HSV and round differently there: on photographs each is 0.2 gray levels
from the exact result on average, and 0.3 from the other.
"""

import functools
import math
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

_Image = UInt8[np.ndarray, "h w 3"]

# ITU-R 601 luma, in PIL's 16-bit fixed point.
_LUMA = np.array([19595, 38470, 7471]) / 65536


def _lut(center: float, factor: float) -> UInt8[np.ndarray, "256"]:
    values = center + factor * (np.arange(256) - center)
    return np.clip(values, 0, 255).astype(np.uint8)


def mean_gray(image: _Image) -> int:
    """The mean luma, rounded."""
    return math.floor(float(np.dot(cv2.mean(image)[:3], _LUMA)) + 0.5)


def adjust_brightness(image: _Image, factor: float) -> _Image:
    """Every value times `factor`, clipped."""
    return cv2.LUT(image, _lut(0.0, factor))  # pyright: ignore[reportReturnType]


def adjust_contrast(image: _Image, factor: float, mean: int | None = None) -> _Image:
    """Distances from `mean` (default: the image's `mean_gray`) times `factor`, clipped."""
    center = mean_gray(image) if mean is None else mean
    return cv2.LUT(image, _lut(float(center), factor))  # pyright: ignore[reportReturnType]


def adjust_saturation(image: _Image, factor: float) -> _Image:
    """Distances from the pixel's own luma times `factor`, clipped."""
    matrix = factor * np.eye(3) + (1 - factor) * np.tile(_LUMA, (3, 1))
    return cv2.transform(image, matrix)  # pyright: ignore[reportReturnType]


def adjust_hue(image: _Image, shift: float) -> _Image:
    """Turns the hue by `shift` full turns, in steps of 1/256."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(shift * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL, dst=hsv)  # pyright: ignore[reportReturnType]


def grayscale(image: _Image) -> _Image:
    """The luma in all three channels."""
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
    """Brightness, contrast, saturation and hue in random order (torchvision's ColorJitter).

    The first three are factors uniform in [max(0, 1 - x), 1 + x]; the hue turns by a uniform share
    of a full turn in [-`hue`, `hue`]. A strength of 0 leaves its property alone.

    Args:
      image: the image, or a part of it.
      rng: where the order and the factors come from.
      brightness: strength; likewise `contrast`, `saturation` and `hue`.
      whole: the whole image where `image` is a part, in any size; contrast is about its mean.
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


def hsv_shift(image: _Image, rng: np.random.Generator, amount: int) -> _Image:
    """Adds one integer each from ±`amount` to H (which turns in 180 steps), S and V (clipped).

    Source: the training of SEAM's final segmentation network, amount 10.
    """
    hue, saturation, value = (int(v) for v in rng.integers(-amount, amount, 3, endpoint=True))
    levels = np.arange(256)
    shifted = [(levels + hue) % 180, levels + saturation, levels + value]
    table = np.stack(shifted, axis=-1).clip(0, 255).astype(np.uint8)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table[None])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)  # pyright: ignore[reportReturnType]
