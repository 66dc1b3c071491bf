"""Heat maps on photographs, the same for TensorBoard and the report."""

import numpy as np
from jaxtyping import Float, UInt8

# Position -> RGB. Lightness rises all along the ramp, so it also reads in gray print and for
# color-blind eyes; night blue and pale yellow are rare in photographs.
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
"""Color of heat 0 … 1 in 256 steps."""


def cam_overlay(
    image: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Lays an activation map over its image.

    Args:
      image: RGB.
      heat: activation per pixel in 0…1; values outside are clipped, NaN counts as 0.

    Returns:
      RGB: the gray, dimmed photograph where nothing is found, the color of the heat where
      something is; more opaque the hotter, so that outlines stay visible underneath.
    """
    level = np.clip(np.nan_to_num(heat.astype(np.float32)), 0.0, 1.0)
    color = HEAT_COLORS[(level * 255.0).round().astype(np.uint8)].astype(np.float32)
    gray = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    photograph = 0.55 * gray[..., None] + 0.25 * image.astype(np.float32)
    # A square root lets weak activations show: CAMs fall off quickly around their peak.
    opacity = (0.74 * np.sqrt(level))[..., None]
    return np.clip(photograph * (1.0 - opacity) + color * opacity, 0, 255).round().astype(np.uint8)
