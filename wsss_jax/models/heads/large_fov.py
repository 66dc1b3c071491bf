"""The head of DeepLabv1."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.heads.base import ConvNormRelu, Head
from wsss_jax.models.layers import Conv, downsample_valid


class LargeFov(Head):
    """A dilated 3×3 and a 1×1 layer, dropout, and a 1×1 classifier.

    This is DeepLabv1 with a large field of view (Chen et al., ICLR 2015), in the form that SEAM
    uses.

    Attributes:
      features: the channels of the two layers.
      dilation: the dilation of the 3×3 layer.
      dropout: the dropout rate before the classifier.
      bn_momentum: the share of the batch statistics that enters the running ones at every step.
    """

    features: int = 512
    dilation: int = 12
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
    ) -> Float[Array, "b p q c1"]:
        """Computes the logits at the stride of ``conv6``."""
        momentum = self.bn_momentum if train else 0.0
        x = taps["conv6"]
        valid = downsample_valid(valid, strides["conv6"])
        for number, (size, rate) in enumerate(((3, self.dilation), (1, 1))):
            layer = ConvNormRelu(
                self.features, size, rate, momentum, self.dtype, name=f"layer_{number}"
            )
            x = layer(x, valid)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        classifier = Conv(self.outputs, 1, use_bias=True, dtype=self.dtype, name="classifier")
        return classifier(x).astype(jnp.float32)
