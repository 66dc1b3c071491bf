"""What SEAM's pixel correlation measures similarity on (arXiv 2004.04581, section 3.3)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import Conv, Dtype
from wsss_jax.models.taps import to_size


def correlation_features(
    x: Float[Array, "b h w 3"],
    taps: dict[str, Array],
    size: tuple[int, int],
    valid: Bool[Array, "b h w"] | None,
    dims: tuple[int, int, int],
    dtype: Dtype,
) -> Float[Array, "b p q d"]:
    """Colour and two inner feature maps, at `size`; its layers become the calling module's.

    No gradient reaches the backbone.

    Args:
      x: normalised images.
      taps: the backbone's feature maps; ``conv4`` and ``conv5`` are used.
      size: (height, width) of the maps that the correlation revises.
      valid: the top-left rectangle of each image that is no padding.
      dims: channels of the 1×1 layers f8_3 and f8_4, on a tap each, and f9, on all.
      dtype: of the layers.
    """
    he = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
    wide = nn.initializers.variance_scaling(16.0, "fan_avg", "uniform")  # xavier with gain 4
    parts = [to_size(x, size, valid).astype(dtype)]
    for name, tap, width in (("f8_3", "conv4", dims[0]), ("f8_4", "conv5", dims[1])):
        side = to_size(jax.lax.stop_gradient(taps[tap]), size, valid)
        parts.append(nn.relu(Conv(width, 1, kernel_init=he, dtype=dtype, name=name)(side)))
    return Conv(dims[2], 1, kernel_init=wide, dtype=dtype, name="f9")(
        jnp.concatenate(parts, axis=-1)
    )
