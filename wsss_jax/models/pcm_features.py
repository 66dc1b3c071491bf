"""The features on which SEAM's pixel correlation measures similarity (arXiv 2004.04581, 3.3)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import HE, XAVIER_4, Conv, Dtype
from wsss_jax.models.taps import map_size, to_stride


def correlation_features(
    x: Float[Array, "b h w 3"],
    taps: dict[str, Array],
    strides: Mapping[str, int],
    stride: int,
    valid: Bool[Array, "b h w"] | None,
    dims: tuple[int, int, int],
    dtype: Dtype,
) -> Float[Array, "b p q d"]:
    """Combines colors and two inner feature maps at `stride`; no gradient reaches the backbone.

    The layers become submodules of the calling module.

    Args:
      x: normalized images.
      taps: the feature maps of the backbone, of which ``conv4`` and ``conv5`` are used.
      strides: their strides; see `wsss_jax.models.base.Backbone.tap_strides`.
      stride: the stride of the maps that the correlation revises.
      valid: the top-left rectangle of each image that is not padding.
      dims: the channels of the 1×1 layers f8_3 and f8_4, on one tap each, and of f9, on all.
      dtype: the type of the layers.
    """
    size = map_size((x.shape[1], x.shape[2]), stride)
    parts = [to_stride(x, 1, stride, size, valid).astype(dtype)]
    for name, tap, width in (("f8_3", "conv4", dims[0]), ("f8_4", "conv5", dims[1])):
        inner = jax.lax.stop_gradient(taps[tap])
        side = to_stride(inner, strides[tap], stride, size, valid)
        parts.append(nn.relu(Conv(width, 1, kernel_init=HE, dtype=dtype, name=name)(side)))
    return Conv(dims[2], 1, kernel_init=XAVIER_4, dtype=dtype, name="f9")(
        jnp.concatenate(parts, axis=-1)
    )
