"""Heat maps over photographs, in the same style for TensorBoard and the report."""

import numpy as np
from jaxtyping import Float, UInt8

# Position -> RGB. Lightness rises along the whole ramp, so it also works in gray print and for
# color-blind readers. Night blue and pale yellow are rare in photographs.
_ANCHORS = (
    (0.00, (13, 16, 54)),
    (0.20, (62, 24, 118)),
    (0.40, (139, 33, 128)),
    (0.58, (212, 64, 96)),
    (0.74, (246, 119, 57)),
    (0.88, (253, 186, 63)),
    (1.00, (253, 246, 178)),
)


def _ramp() -> UInt8[np.ndarray, "256 3"]:
    positions = [position for position, _ in _ANCHORS]
    colors = np.array([color for _, color in _ANCHORS], np.float64)
    at = np.linspace(0.0, 1.0, 256)
    channels = [np.interp(at, positions, colors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


HEAT_COLORS: UInt8[np.ndarray, "256 3"] = _ramp()
"""The colors of heat 0 … 1 in 256 steps."""


def cam_overlay(
    image: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Overlays an image with an activation map.

    Args:
      image: the image in RGB.
      heat: the activation of each pixel in 0…1. Values outside are clipped, and NaN counts as 0.

    Returns:
      An RGB image that shows the dimmed, gray photograph where the activation is 0. Higher
      activations are more opaque, so that outlines stay visible beneath weak ones.
    """
    level = np.clip(np.nan_to_num(heat.astype(np.float32)), 0.0, 1.0)
    color = HEAT_COLORS[(level * 255.0).round().astype(np.uint8)].astype(np.float32)
    gray = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    photograph = 0.55 * gray[..., None] + 0.25 * image.astype(np.float32)
    # The square root makes weak activations visible, because CAMs fall off quickly from their peak.
    opacity = (0.74 * np.sqrt(level))[..., None]
    return np.clip(photograph * (1.0 - opacity) + color * opacity, 0, 255).round().astype(np.uint8)
