"""The head of DeepLabv2."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsss_jax.models.heads.base import Head
from wsss_jax.models.layers import Conv, downsample_valid, mask_features


class Aspp(Head):
    """Parallel dilated 3×3 classifiers whose logits are added.

    Source: DeepLabv2 (Chen et al., arXiv 1606.00915, section 3.2).

    Attributes:
      dilations: the dilations of the classifiers.
    """

    dilations: tuple[int, ...] = (6, 12, 18, 24)

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
        del train
        x = mask_features(taps["conv6"], downsample_valid(valid, strides["conv6"]))
        init = nn.initializers.normal(0.01)
        parts = [
            Conv(
                self.outputs,
                3,
                dilation=rate,
                use_bias=True,
                kernel_init=init,
                dtype=self.dtype,
                name=f"classifier_{number}",
            )(x)
            for number, rate in enumerate(self.dilations)
        ]
        return sum(part.astype(jnp.float32) for part in parts)  # pyright: ignore[reportReturnType]
