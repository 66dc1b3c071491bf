"""SEAM: self-supervised equivariant attention (CVPR 2020, arXiv 2004.04581).

An image and a smaller copy go through one network. Its activation maps and the maps that the pixel
correlation module makes of them have to agree across the two scales, each supervised by the other.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from wsss_jax import losses, models
from wsss_jax.methods import base
from wsss_jax.models.layers import Conv
from wsss_jax.models.pcm import pixel_correlation, pixel_correlation_input
from wsss_jax.ops.max_norm import min_max_norm, winner_only, with_background
from wsss_jax.ops.resize import resize_bilinear, scaled_size, valid_size
from wsss_jax.types import Aux, Batch, ParamRule


class SeamNetwork(nn.Module):
    """Backbone, classifier with a background channel, and pixel correlation.

    Attributes:
      backbone_fields: description of the backbone, see `wsss_jax.models.build`.
      num_classes: foreground classes C.
      dims: channels of the three 1×1 layers that make the correlation's features (f8_3, f8_4, f9).
      dropout: rate of the channel dropout before the classifier.
      use_pcm: False leaves the correlation out: the revised maps are then the maps themselves.
      dtype: of the convolutions; maps and correlation are float32.
    """

    backbone_fields: Mapping[str, Any]
    num_classes: int
    dims: tuple[int, int, int] = (64, 128, 192)
    dropout: float = 0.5
    use_pcm: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        valid: Bool[Array, "b h w"] | None = None,
        *,
        train: bool = False,
    ) -> dict[str, Array]:
        """Maps at the network's stride.

        Args:
          x: normalised images.
          valid: the top-left rectangle of each image that is no padding.
          train: turns dropout on (needs a ``dropout`` key).

        Returns:
          ``cam`` and ``cam_rv`` [b, h', w', C + 1], raw scores; channel 0 is background.
        """
        dtype = jnp.dtype(self.dtype)
        taps = models.build(
            {"dtype": dtype, **self.backbone_fields}, parent=self, name="backbone"
        )(x, valid, train=train)
        final = taps["conv6"]
        size = (final.shape[1], final.shape[2])
        dropped = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(final, deterministic=not train)
        xavier = nn.initializers.xavier_uniform()
        cam = Conv(self.num_classes + 1, kernel_init=xavier, dtype=dtype, name="fc8")(dropped)
        cam = cam.astype(jnp.float32)
        if not self.use_pcm:
            return {"cam": cam, "cam_rv": cam}

        small_valid, sizes = None, {}
        if valid is not None:
            stride = models.backbone_stride(x.shape[1], size[0])
            small_valid = models.downsample_valid(valid, stride)
            sizes = {"in_size": valid_size(valid), "out_size": valid_size(small_valid)}
        image = resize_bilinear(x, size, align_corners=True, **sizes)
        he = nn.initializers.kaiming_normal()
        wide = nn.initializers.variance_scaling(16.0, "fan_avg", "uniform")  # xavier with gain 4
        parts = [image.astype(dtype)]
        for name, tap, features in (("f8_3", "conv4", self.dims[0]), ("f8_4", "conv5", self.dims[1])):
            # No gradient of the correlation reaches the backbone.
            side = Conv(features, kernel_init=he, dtype=dtype, name=name)(
                jax.lax.stop_gradient(taps[tap])
            )
            parts.append(nn.relu(side))
        features = Conv(self.dims[2], kernel_init=wide, dtype=dtype, name="f9")(
            jnp.concatenate(parts, axis=-1)
        )
        revised = pixel_correlation(features, pixel_correlation_input(cam, small_valid), small_valid)
        return {"cam": cam, "cam_rv": revised}
