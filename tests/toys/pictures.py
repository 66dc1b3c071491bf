"""Pictures to change, and the slow way to change their colors and sizes."""

import cv2
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

sides = st.integers(1, 70)
seeds = st.integers(0, 2**32)
quick = settings(max_examples=30, deadline=None)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3)).astype(np.uint8)


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture with a photograph's slow changes, in strong colors."""
    return cv2.resize(noise(5, 7, seed), (width, height), interpolation=cv2.INTER_CUBIC)


def pil_bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rows first: in a single call, Pillow 13 chooses the order by the shape."""
    rows = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(rows.resize((width, height), Image.Resampling.BICUBIC))


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(int) - b.astype(int))


def slow_adjust(image: np.ndarray, what: str, amount: float) -> np.ndarray:
    """Brightness, contrast, saturation by PIL; the hue exactly, in floating point."""
    enhance = {"contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}
    enhance["brightness"] = ImageEnhance.Brightness  # pyright: ignore[reportArgumentType]
    if what != "hue":
        return np.asarray(enhance[what](Image.fromarray(image)).enhance(amount))
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * amount) % 360
    return np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)


def slow_jitter(image, rng, strengths, whole=None):
    names = ("brightness", "contrast", "saturation", "hue")
    for step in rng.permutation(4):
        strength = strengths[names[step]]
        if strength == 0:
            continue
        low, high = (-strength, strength) if step == 3 else (max(0, 1 - strength), 1 + strength)
        image = slow_adjust(image, names[step], rng.uniform(low, high))
    return image
