"""The head of DeepLabv3+."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.heads.base import ConvNormRelu, Head
from wsss_jax.models.layers import Conv, downsample_valid
from wsss_jax.models.taps import to_stride


class V3Plus(Head):
    """An atrous pyramid with image pooling, and a decoder that adds the features of ``conv3``.

    Source: DeepLabv3+ (Chen et al., ECCV 2018, section 3).

    Attributes:
      features: the channels of pyramid and decoder.
      low_features: the channels to which the features of ``conv3`` are reduced.
      dilations: the dilations of the pyramid's 3×3 layers: (6, 12, 18) at output stride 16, and
        twice as much at 8.
      dropout: the dropout rate after the pyramid.
      bn_momentum: the share of the batch statistics that enters the running ones at every step.
    """

    features: int = 256
    low_features: int = 48
    dilations: tuple[int, ...] = (6, 12, 18)
    dropout: float = 0.5
    bn_momentum: float = 3e-4

    @nn.compact
    def __call__(
        self,
        taps: dict[str, Array],
        strides: Mapping[str, int],
        valid: Bool[Array, "b h w"] | None,
        *,
        train: bool = False,
    ) -> Float[Array, "b r s c1"]:
        """Computes the logits at the stride of ``conv3``."""
        momentum = self.bn_momentum if train else 0.0

        def layer(features: int, size: int, rate: int, name: str) -> ConvNormRelu:
            return ConvNormRelu(features, size, rate, momentum, self.dtype, name=name)

        x, low = taps["conv6"], taps["conv3"]
        high_valid = downsample_valid(valid, strides["conv6"])
        branches = [layer(self.features, 1, 1, "pyramid_0")(x, high_valid)]
        for number, rate in enumerate(self.dilations, 1):
            branches.append(layer(self.features, 3, rate, f"pyramid_{number}")(x, high_valid))
        where = None if high_valid is None else high_valid[..., None]
        pooled = jnp.mean(x, (1, 2), keepdims=True, where=where)
        pooled = layer(self.features, 1, 1, "pool")(pooled, None)
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        x = layer(self.features, 1, 1, "project")(jnp.concatenate(branches, -1), high_valid)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)

        low_valid = downsample_valid(valid, strides["conv3"])
        size = (low.shape[1], low.shape[2])
        x = to_stride(x, strides["conv6"], strides["conv3"], size, valid)
        low = layer(self.low_features, 1, 1, "low")(low, low_valid)
        x = jnp.concatenate([x, low.astype(x.dtype)], -1)
        for number in range(2):
            x = layer(self.features, 3, 1, f"decoder_{number}")(x, low_valid)
        classifier = Conv(self.outputs, 1, use_bias=True, dtype=self.dtype, name="classifier")
        return classifier(x).astype(jnp.float32)
