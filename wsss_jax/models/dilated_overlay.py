"""Parallel dilated classifiers on one feature map, laid over each other.

ECS-Net's head (ICCV 2021), fused as by Wei et al. (Revisiting Dilated Convolution, CVPR 2018): a
small kernel finds what is discriminative, and large dilations carry that to its surroundings.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wsss_jax.models.layers import Dtype


class TapConv(nn.Module):
    """3×3 convolution without bias from many channels to few, zero padded, float32 result.

    All taps are applied in one matrix product and their few channels shifted and added. XLA's own
    derivative of such a convolution by its kernel is many times slower on a CPU.

    Attributes:
      features: channels of the result.
      dilation: distance between the taps.
      dtype: of the product.
    """

    features: int
    dilation: int = 1
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """Applies the convolution."""
        b, h, w, channels = x.shape
        xavier = nn.initializers.xavier_uniform()
        kernel = self.param("kernel", xavier, (3, 3, channels, self.features), jnp.float32)
        taps = jnp.moveaxis(kernel, 2, 0).reshape(channels, -1).astype(self.dtype)
        product = x.astype(self.dtype).reshape(-1, channels) @ taps
        product = product.reshape(b, h, w, 3, 3, self.features).astype(jnp.float32)
        total = jnp.zeros((b, h, w, self.features), jnp.float32)
        for i in range(3):
            for j in range(3):
                down, right = ((n - 1) * self.dilation for n in (i, j))
                if abs(down) < h and abs(right) < w:  # else this tap sees padding alone
                    shift = ((0, 0, 0), (-down, down, 0), (-right, right, 0), (0, 0, 0))
                    total += jax.lax.pad(product[:, :, :, i, j], jnp.float32(0), shift)
        return total


class DilatedOverlay(nn.Module):
    """Maps of one classifier per dilation.

    Attributes:
      features: channels of the maps.
      dilations: of the 3×3 classifiers.
      dtype: of their products.
    """

    features: int
    dilations: tuple[int, ...] = (1, 3, 6, 9)
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, overlaid: bool) -> Float[Array, "b h w d"]:
        """The first classifier's maps; with `overlaid` plus the mean of the others'."""
        heads = [
            TapConv(self.features, dilation, self.dtype, name=f"d{dilation}")
            for dilation in self.dilations
        ]
        first = heads[0](x)
        # All parameters are made at once, whichever maps are asked for first.
        if len(heads) == 1 or not (overlaid or self.is_initializing()):
            return first
        others = jnp.stack([head(x) for head in heads[1:]])
        return first + others.mean(0)
