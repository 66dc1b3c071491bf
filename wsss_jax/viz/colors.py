"""Colors for classes, and masks painted with them."""

import cv2
import numpy as np
from jaxtyping import UInt8

_IGNORE = 255
_IGNORE_COLOR = (226, 222, 214)
# Lightness and chroma alternate, so that neighbors on the hue circle still differ.
_TONES = ((0.72, 0.15), (0.80, 0.12), (0.64, 0.17))
_GOLDEN_ANGLE = 137.508  # degrees; spreads any number of hues evenly


def class_colors(num_classes: int) -> UInt8[np.ndarray, "n 3"]:
    """Returns the RGB colors of the background (a night blue) and of C foreground classes.

    There are C + 1 rows. The colors are brighter and more even than the VOC palette, which is made
    for files and not for human eyes.
    """
    index = np.arange(num_classes)
    lightness, chroma = np.array(_TONES)[index % len(_TONES)].reshape(-1, 2).T
    hue = np.deg2rad(25.0 + _GOLDEN_ANGLE * index)
    colors = _oklab_to_rgb(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
    return np.concatenate([np.array([[24, 22, 48]], np.uint8), colors])


def paint_mask(
    image: UInt8[np.ndarray, "h w 3"],
    mask: UInt8[np.ndarray, "h w"],
    colors: UInt8[np.ndarray, "n 3"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Paints a mask over its image: classes in color with a white outline, the rest dimmed.

    Args:
      image: the image in RGB.
      mask: class indices; 255 (ignore) is painted in a pale color.
      colors: one color per class index, as from `class_colors`.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    table[_IGNORE] = _IGNORE_COLOR
    opacity = np.full(256, 0.72, np.float32)
    opacity[0], opacity[_IGNORE] = 0.45, 0.6
    gray = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    alpha = opacity[mask][..., None]
    painted = 0.8 * gray[..., None] * (1.0 - alpha) + table[mask].astype(np.float32) * alpha
    painted[_outline(mask)] = (255, 255, 255)
    return np.clip(painted, 0, 255).round().astype(np.uint8)


def _outline(mask: np.ndarray) -> np.ndarray:
    """Marks the foreground pixels at the edge of their class."""
    kernel = np.ones((3, 3), np.uint8)
    edge = cv2.dilate(mask, kernel) != cv2.erode(mask, kernel)
    return edge & (mask != 0) & (mask != _IGNORE)


def _oklab_to_rgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Converts Oklab to 8-bit sRGB (Ottosson, "A perceptual color space for image processing")."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    linear = np.clip(np.stack([red, green, blue], axis=-1), 0.0, 1.0)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255.0 * curved).round().astype(np.uint8)
